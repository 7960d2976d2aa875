package plugin

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

// readNext reads a packet, however long it takes.
func readNext(in *input) ([]byte, error) {
	for {
		packet, err := in.read()
		if err != errQuiet {
			return packet, err
		}
		if err := in.await(); err != nil {
			return nil, err
		}
	}
}

// A stage that waits for batches must not keep the garbage collector waiting
// until one comes: it stops all goroutines, and one is in a read that the
// runtime does not know of.
func TestWaitForABatchDoesNotHoldUpTheCollector(t *testing.T) {
	feed, input := pair(t)
	in, err := newInput(input)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for range 200 {
			if _, err := readNext(in); err != nil {
				done <- err
				return
			}
		}
		_, err := readNext(in) // nothing comes any more
		done <- err
	}()
	for range 200 { // one after another, so that the reader is mostly in a raw read
		if err := sendPacket(feed, builder(flow.Header{}, event(1)).Bytes(), 0); err != nil {
			t.Fatal(err)
		}
		runtime.GC()
	}
	collected := make(chan struct{})
	go func() { runtime.GC(); close(collected) }()
	select {
	case <-collected:
	case <-time.After(20 * time.Second):
		t.Error("the collector waits for a batch")
	}
	if err := unix.Shutdown(feed, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	<-done
}
