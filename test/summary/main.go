// Summary reads the output of `go test -json` as it comes and prints a line a
// package, what failed with its output, and what was skipped with the reason;
// and last how many tests ran.
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
	output, count := map[string]*strings.Builder{}, map[string]int{}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text()) // of the compiler
			continue
		}
		key := e.Package + " " + e.Test
		if e.Test != "" {
			count[e.Action]++
		}
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
	fmt.Printf("%d passed, %d failed, %d skipped\n", count["pass"], count["fail"], count["skip"])
}

func text(b *strings.Builder) string {
	if b == nil {
		return ""
	}
	return b.String()
}
