package notrack

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
)

// datagramsOf cuts a stream that arrives in pieces of the given length.
func datagramsOf(t *testing.T, stream []byte, piece int) (all [][]byte, err error) {
	t.Helper()
	var s Stream
	for len(stream) > 0 {
		n := copy(s.Space(), stream[:min(piece, len(stream))])
		s.Filled(n)
		stream = stream[n:]
		for {
			p, err := s.Next()
			if err != nil {
				return all, err
			}
			if p == nil {
				break
			}
			all = append(all, slices.Clone(p))
		}
	}
	return all, nil
}

// What was sent at once arrives at once, however the bytes come.
func TestStreamKeepsFrames(t *testing.T) {
	p := NewPacker(2000, NewSequencer(5))
	p.SetFramed()
	p.SetReplay(7)
	enc := NewEncoder(Settings{Room: 2000 - FrameSize})
	var stream []byte
	var want [][]byte
	for i := range 300 {
		e := flow.Event{Kind: flow.Update, Flow: flow.Flow{Present: flow.HasStatus, Family: flow.IPv4, Protocol: flow.GRE}}
		e.Original.SourcePort, e.Original.DestinationPort = uint16(i+1), 9 // keys go into an extension
		m, err := enc.AppendFlow(nil, &e)
		if err != nil || !p.Append(m) {
			t.Fatal(err)
		}
	}
	p.Flush()
	for i := range p.Len() {
		want = append(want, slices.Clone(p.Datagram(i)))
	}
	stream = p.Bytes()
	if !bytes.Equal(stream, bytes.Join(want, nil)) {
		t.Fatal("Bytes are not the datagrams")
	}
	for _, piece := range []int{1, 7, 20, 1000, 1999, 2001, 1 << 14} {
		got, err := datagramsOf(t, stream, piece)
		if err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("pieces of %d: %d datagrams, want %d, %v", piece, len(got), len(want), err)
		}
	}
	var d Decoder
	var tracker Tracker
	flows := 0
	for _, p := range want {
		d.Reset(p, &tracker)
		for m := (Message{}); d.Next(&m); {
			if m.Kind == Flow {
				flows++
				if m.Replay != 7 || m.Event.Original.SourcePort != uint16(flows) {
					t.Fatalf("%+v", m)
				}
			}
		}
	}
	if flows != 300 || d.Counters != (Counters{}) || tracker.Lost != 0 {
		t.Errorf("%d flows, %+v, %+v", flows, d.Counters, tracker)
	}
}

// conntrackd marks nothing: what is complete is taken.
func TestStreamOfConntrackd(t *testing.T) {
	one, two := AppendAlive(nil), AppendResync(nil, Resync{})
	stream := slices.Concat(one, two, one)
	var total []byte
	for _, piece := range []int{1, 3, 8, 9, 100} {
		got, err := datagramsOf(t, stream, piece)
		if total = bytes.Join(got, nil); err != nil || !bytes.Equal(total, stream) {
			t.Errorf("pieces of %d: %x, %v", piece, total, err)
		}
		for _, p := range got {
			if n := len(p); n != 8 && n != 16 && n != 24 && n != 32 {
				t.Errorf("pieces of %d: a datagram of %d bytes", piece, n)
			}
		}
	}
}

// A message that is not marked may come before one that is.
func TestStreamOfBoth(t *testing.T) {
	framed := append(appendFrame(nil, 24), slices.Concat(AppendAlive(nil), AppendResync(nil, Resync{}))...)
	got, err := datagramsOf(t, slices.Concat(AppendAlive(nil), framed, AppendAlive(nil)), 1000)
	if err != nil || len(got) != 3 || !bytes.Equal(got[1], framed) {
		t.Errorf("%x, %v", got, err)
	}
}

func TestStreamRefuses(t *testing.T) {
	for name, p := range map[string][]byte{
		"length 0":            {0x10, 0, 0, 0, 0, 0, 0, 1},
		"length 7":            {0x10, 0, 0, 7, 0, 0, 0, 1},
		"a frame of too much": appendFrame(nil, maxFrame+1),
		"behind a good one":   append(AppendAlive(nil), make([]byte, 8)...),
	} {
		if _, err := datagramsOf(t, p, 100); !errors.Is(err, ErrStream) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := datagramsOf(t, appendFrame(nil, maxFrame), 100); len(got) > 0 || err != nil {
		t.Errorf("a frame without its bytes: %v, %v", got, err)
	}
}

// FuzzStream: whatever comes in whatever pieces, what is taken is what came, in
// order, and memory stays bounded.
func FuzzStream(f *testing.F) {
	f.Add(slices.Concat(AppendAlive(nil), appendFrame(nil, 8), AppendAlive(nil)), 3)
	f.Add(appendFrame(nil, maxFrame), 100)
	f.Fuzz(func(t *testing.T, stream []byte, piece int) {
		if piece <= 0 || len(stream) > 1<<18 {
			return
		}
		got, err := datagramsOf(t, stream, piece)
		all := bytes.Join(got, nil)
		if !bytes.HasPrefix(stream, all) {
			t.Fatalf("%x of %x", all, stream)
		}
		if err == nil && len(stream)-len(all) > 1<<16+FrameSize+maxFrame {
			t.Fatalf("%d bytes are kept", len(stream)-len(all))
		}
		again, errAgain := datagramsOf(t, stream, 1)
		if !bytes.Equal(bytes.Join(again, nil), all) || (err == nil) != (errAgain == nil) {
			t.Fatalf("another cut: %v, %v", err, errAgain)
		}
	})
}
