package ctnl

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

// A Getter reads single flows of the kernel's table. One goroutine uses it.
type Getter struct {
	socket             *socket
	buf, request, tail []byte
	event              flow.Event
	seq                uint32
}

// getBuffer is room for an answer; no entry is a tenth as long.
const getBuffer = 8 << 10

// OpenGetter opens a socket in the calling thread's network namespace.
func OpenGetter() (*Getter, error) {
	s, err := dial(0, nil)
	if err != nil {
		return nil, fmt.Errorf("conntrack get: %w", err)
	}
	return &Getter{socket: s, buf: make([]byte, getBuffer)}, nil
}

// Get reads the entry of f's original tuple and zones. The event is valid until
// the next call; nil says that there is no such entry.
func (g *Getter) Get(f *flow.Flow) (*flow.Event, error) {
	g.seq++
	g.request = AppendGet(g.request[:0], f, g.seq)
	if err := g.socket.send(g.request); err != nil {
		return nil, fmt.Errorf("conntrack get: request: %w", err)
	}
	for {
		n, err := g.socket.receiveWait(g.buf, dumpWait)
		if err != nil {
			return nil, fmt.Errorf("conntrack get: read: %w", err)
		}
		r, _, err := nextReply(g.buf[:n])
		if err != nil {
			return nil, fmt.Errorf("conntrack get: %w", err)
		}
		if r.seq != g.seq { // of an earlier request that was given up
			continue
		}
		if r.typ == unix.NLMSG_ERROR {
			if errno := r.errno(); errno != unix.ENOENT {
				return nil, fmt.Errorf("conntrack get: %w", errno)
			}
			return nil, nil
		}
		if g.tail, err = Decode(r.message, &g.event, g.tail); err != nil {
			return nil, fmt.Errorf("conntrack get: %w", err)
		}
		return &g.event, nil
	}
}

// Close closes the socket.
func (g *Getter) Close() error { return g.socket.close() }
