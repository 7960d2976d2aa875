package ctnl

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

// dumpBuffer is the room for one datagram of a dump. The kernel fills as much
// as the reader offers, up to 32 KiB.
const dumpBuffer = 128 << 10

// dumpWait is how long a read waits for the kernel. It makes each part while
// the one before is read, so nothing is to be waited for but in want of memory.
const dumpWait = 5 * time.Second

// A Filter chooses what the kernel puts into a dump. Scanning the table is
// cheap and copying is not, so what is not wanted is best left in the kernel.
// The zero Filter chooses all.
type Filter struct {
	Family             uint8       // 0: both
	Mark, MarkMask     uint32      // mask 0: any mark
	Status, StatusMask flow.Status // mask 0: any status
	Zone               *uint16     // nil: any zone
}

// A Dump reads the kernel's table as a stream: memory does not grow with the
// table. It is no snapshot, for the table changes while it is read. A flow that
// exists all the while is read exactly once; one that ends may be read after
// its DESTROY event.
type Dump struct {
	socket      *socket
	buf, tail   []byte
	event       flow.Event
	interrupted bool
	malformed   uint64
}

// OpenDump begins a dump of the calling thread's network namespace on a socket
// of its own.
func OpenDump(f Filter) (*Dump, error) { return openDump(appendDump(nil, &f)) }

// OpenExpectationDump is OpenDump for all expectations.
func OpenExpectationDump() (*Dump, error) {
	p, at := begin(nil, typeExpectGet, unix.NLM_F_DUMP, 1, 0)
	return openDump(end(p, at))
}

func openDump(request []byte) (*Dump, error) {
	s, err := dial(0, nil)
	if err != nil {
		return nil, fmt.Errorf("conntrack dump: %w", err)
	}
	d := &Dump{socket: s, buf: make([]byte, dumpBuffer)}
	if err := s.send(request); err != nil {
		s.close()
		return nil, fmt.Errorf("conntrack dump: request: %w", err)
	}
	return d, nil
}

func appendDump(p []byte, f *Filter) []byte {
	p, at := begin(p, typeGet, unix.NLM_F_DUMP, 1, f.Family)
	if f.MarkMask != 0 {
		p = appendU32(p, ctaMark, f.Mark)
		p = appendU32(p, ctaMarkMask, f.MarkMask)
	}
	if f.StatusMask != 0 {
		p = appendU32(p, ctaStatus, uint32(f.Status))
		p = appendU32(p, ctaStatusMask, uint32(f.StatusMask))
	}
	if f.Zone != nil {
		p = appendU16(p, ctaZone, *f.Zone)
	}
	return end(p, at)
}

// Next reads the next part of the table, some hundred flows, and calls each for
// one after another; the event is valid until each returns, and an error of
// each ends the dump. Next returns false when the table is at its end. Between
// two calls nothing is lost, however long that takes.
func (d *Dump) Next(each func(*flow.Event) error) (more bool, err error) {
	n, err := d.socket.receiveWait(d.buf, dumpWait)
	if err != nil {
		return false, fmt.Errorf("conntrack dump: read: %w", err)
	}
	for rest := d.buf[:n]; len(rest) > 0; {
		var r reply
		if r, rest, err = nextReply(rest); err != nil {
			return false, fmt.Errorf("conntrack dump: %w", err)
		}
		d.interrupted = d.interrupted || r.flags&unix.NLM_F_DUMP_INTR != 0
		switch r.typ {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if errno := r.errno(); errno != 0 {
				return false, fmt.Errorf("conntrack dump: %w", errno)
			}
			return false, nil
		case unix.NLMSG_NOOP:
			continue
		}
		if d.tail, err = Decode(r.message, &d.event, d.tail); err != nil {
			d.malformed++
			continue
		}
		if err := each(&d.event); err != nil {
			return false, err
		}
	}
	return true, nil
}

// Interrupted says whether the kernel marked a part as inconsistent with the
// one before (NLM_F_DUMP_INTR): flows may be missing.
func (d *Dump) Interrupted() bool { return d.interrupted }

// Malformed returns how many entries did not decode and were left out.
func (d *Dump) Malformed() uint64 { return d.malformed }

// Close ends the dump, complete or not.
func (d *Dump) Close() error { return d.socket.close() }
