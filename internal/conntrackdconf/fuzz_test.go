package conntrackdconf

import (
	"bytes"
	"testing"
)

// Whatever a file has: its tokens are the file, nothing panics, and what has no
// errors becomes a valid configuration.
func FuzzConvert(f *testing.F) {
	for _, source := range configurations(f) {
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, source []byte) {
		var joined []byte
		line := 1
		for _, token := range Lex("fuzz", source) {
			if token.Range.Start.Byte != len(joined) || token.Range.Start.Line != line {
				t.Fatalf("%q is at %v", token.Bytes, token.Range)
			}
			joined = append(joined, token.Bytes...)
			line += bytes.Count(token.Bytes, []byte("\n"))
		}
		if !bytes.Equal(joined, source) {
			t.Fatalf("the tokens are %q", joined)
		}
		file, r := run(t, "fuzz", source)
		transcript(t, file, r)
		check(t, file, r)
	})
}
