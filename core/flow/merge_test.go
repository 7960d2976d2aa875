package flow

import (
	"bytes"
	"testing"
)

// many returns a tail of n attributes of types from first on.
func many(first, n int) (a Attributes) {
	for i := range n {
		a = a.Append(Attr(first+i), []byte{byte(first), byte(i)})
	}
	return a
}

// A tail that is searched by an index is merged as one that is looked through.
func TestMergeManyAttributes(t *testing.T) {
	for _, n := range []int{1, 10, manyAttributes / 8, manyAttributes} {
		f, u := Flow{Tail: many(1000, n)}, Flow{Tail: many(1000+n/2, n)}
		want := append(bytes.Clone(u.Tail), many(1000, n/2)...)
		if f.Merge(&u, nil); !bytes.Equal(f.Tail, want) {
			t.Errorf("%d attributes: % x, not % x", n, f.Tail, want)
		}
	}
}

func TestMergeDoesNotAllocate(t *testing.T) {
	f, u := Flow{Tail: many(1, 9)}, Flow{Tail: many(5, 9)}
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { g := f; buf = g.Merge(&u, buf) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkMergeHostile has the most attributes that a peer can send.
func BenchmarkMergeHostile(b *testing.B) {
	f, u := Flow{Tail: many(1, 8000)}, Flow{Tail: many(1, 8000)}
	buf := make([]byte, 0, MaxBatch)
	b.ReportAllocs()
	for b.Loop() {
		g := f
		buf = g.Merge(&u, buf)
	}
}
