// Summary reads the output of `go test -json` and prints a line a package, what
// failed with its output, and what was skipped with the reason.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

func main() {
	output := map[string]*strings.Builder{}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text()) // of the compiler
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if output[key] == nil {
				output[key] = &strings.Builder{}
			}
			output[key].WriteString(e.Output)
		case "fail", "build-fail":
			fmt.Printf("FAIL %s (%.1fs)\n%s", key, e.Elapsed, text(output[key]))
		case "skip":
			if e.Test != "" {
				fmt.Printf("skip %s\n%s", key, text(output[key]))
			}
		case "pass":
			if e.Test == "" {
				fmt.Printf("ok   %s (%.1fs)\n", e.Package, e.Elapsed)
			}
		}
		if e.Action != "output" && e.Action != "build-output" {
			delete(output, key)
		}
	}
}

func text(b *strings.Builder) string {
	if b == nil {
		return ""
	}
	return b.String()
}
