package flow

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs; if that is meant, run the test with -update:\n%s", path, diff)
	}
}

// TestGoldenText holds the text form and the JSON of every kind of flow.
func TestGoldenText(t *testing.T) {
	var text, lines bytes.Buffer
	all := flows()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := all[name]
		fmt.Fprintln(&text, f.String())
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%s\n", b)
	}
	for _, kind := range []Kind{Expect, Unexpect} {
		e := expectation()
		e.Kind = kind
		fmt.Fprintln(&text, e.String())
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%s\n", b)
	}
	golden(t, "flows.txt", text.Bytes())
	golden(t, "flows.jsonl", lines.Bytes())
}

// TestGoldenBatch holds the binary form of every kind of record: a change of
// it is a change of Version.
func TestGoldenBatch(t *testing.T) {
	var b Builder
	b.Reset(Header{
		Origin: Peer, Generation: 3, Replay: 0x0102030405060708, Edge: 2, Time: 1700000000000000001,
		Owner: netip.MustParseAddr("192.168.100.2"),
	})
	b.Append(&Event{Kind: SyncBegin, Sync: Sync{Flags: SyncQuiet | SyncClaim}})
	all := flows()
	for i, name := range slices.Sorted(maps.Keys(all)) {
		b.Append(&Event{Kind: Kind(1 + i%3), Flow: all[name]})
	}
	e := expectation()
	b.Append(&e)
	b.Append(&Event{Kind: SyncEnd, Sync: Sync{Flags: SyncQuiet | SyncClaim, Count: uint64(len(all)) + 1}})
	golden(t, "batch.hex", []byte(hex.Dump(b.Bytes())))
}

// exampleBatch is the example of docs/batch.md.
func exampleBatch() []byte {
	var b Builder
	b.Reset(Header{Origin: Kernel, Generation: 1, Replay: 9, Time: 1700000000000000000})
	b.Append(&Event{Kind: SyncBegin, Sync: Sync{Flags: SyncClaim}})
	b.Append(&Event{Kind: Update, Flow: tcpFlow()})
	b.Append(&Event{Kind: SyncEnd, Sync: Sync{Flags: SyncClaim, Count: 1}})
	return b.Bytes()
}

// TestDocumentedExample compares the hex dump of docs/batch.md with the code.
// A line of it is an offset, bytes, two blanks and what they are.
func TestDocumentedExample(t *testing.T) {
	page, err := os.ReadFile("../../docs/batch.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(page), "## Example")
	_, example, _ = strings.Cut(example, "```\n")
	example, _, _ = strings.Cut(example, "```")
	var documented []byte
	for line := range strings.Lines(example) {
		offset, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), "  ")
		if want := fmt.Sprintf("%04x", len(documented)); offset != want {
			t.Fatalf("line %q begins with offset %s, not %s", line, offset, want)
		}
		digits, _, _ := strings.Cut(rest, "  ")
		b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		documented = append(documented, b...)
	}
	if diff := cmp.Diff(hex.Dump(exampleBatch()), hex.Dump(documented)); diff != "" {
		t.Errorf("docs/batch.md shows other bytes than the code makes:\n%s", diff)
	}
}
