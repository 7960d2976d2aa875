package vendor

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	protoBlock = regexp.MustCompile(`(?ms)^(message|service) (\w+) \{\n(.*?)^\}`)
	protoField = regexp.MustCompile(`(?m)^\s+((?:repeated )?\w+) (\w+) = (\d+);`)
	protoCall  = regexp.MustCompile(`rpc (\w+)\((\w+)\) returns \(((?:stream )?\w+)\)`)
)

// protocol reads a .proto file: each field of each message with its type and
// number, and each call.
func protocol(t *testing.T, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, block := range protoBlock.FindAllStringSubmatch(string(text), -1) {
		for _, f := range protoField.FindAllStringSubmatch(block[3], -1) {
			all[block[2]+"."+f[2]] = f[1] + " = " + f[3]
		}
		for _, c := range protoCall.FindAllStringSubmatch(block[3], -1) {
			all[block[2]+"."+c[1]] = c[2] + " returns " + c[3]
		}
	}
	if len(all) < 80 {
		t.Fatalf("found only %d fields and calls in %s", len(all), path)
	}
	return all
}

// What version 1 of the protocol had is there still, with its number and type: a
// field may be added, and none is changed or given up while version 1 is taken.
func TestProtocolStillHasAllOfVersion1(t *testing.T) {
	now := protocol(t, "core/plugin/stagepb/stage.proto")
	for name, was := range protocol(t, "test/vendor/testdata/protocol1/stagev1/stage.proto") {
		if now[name] != was {
			t.Errorf("%s was %q in version 1 and is %q: old plugins would misread it", name, was, now[name])
		}
	}
}

// Authors in other languages find every call, and every field that they are sent at
// the start or asked for, in docs/protocol.md.
func TestProtocolIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, span := range regexp.MustCompile("`[^`\n]+`").FindAllString(string(text), -1) {
		shown[strings.Trim(span, "`")] = true
	}
	for name := range protocol(t, "core/plugin/stagepb/stage.proto") {
		message, field, _ := strings.Cut(name, ".")
		prefix, _, _ := strings.Cut(field, "_")
		switch message {
		case "Stage", "StartRequest", "StatisticsReply":
			if !shown[field] && !shown[prefix+"_…"] {
				t.Errorf("docs/protocol.md does not say what %s is", name)
			}
		}
	}
}
