package testbed

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// ConversationConfig describes a TCP connection to a Server that lasts until it
// is told to end, with data both ways all the time.
type ConversationConfig struct {
	// From is the client's address and port; the zero value lets the kernel choose.
	From netip.AddrPort
	// To is the Server.
	To netip.AddrPort
	// Rate is the bytes a second each way; it must not be 0. With 1 the
	// connection is idle but for a byte now and then.
	Rate int64
	// Seed chooses the pseudo-random stream.
	Seed uint64
}

// Conversation is such a connection: what the client sends comes back, and its
// hash is compared in the end.
type Conversation struct {
	config ConversationConfig
	conn   *net.TCPConn
	stop   context.CancelFunc
	moved  atomic.Int64
	done   chan struct{}
	err    error // valid once done is closed
}

// Converse connects from the namespace and talks in the background. Cancelling
// ctx breaks the connection off.
func (n *Namespace) Converse(ctx context.Context, config ConversationConfig) (*Conversation, error) {
	conn, err := n.Dial(ctx, "tcp", config.From, config.To)
	if err != nil {
		return nil, fmt.Errorf("testbed: conversation: %w", err)
	}
	c := &Conversation{config: config, conn: conn.(*net.TCPConn), done: make(chan struct{})}
	stopped, stop := context.WithCancel(ctx)
	c.stop = stop
	cut := context.AfterFunc(ctx, func() { conn.Close() })
	go func() {
		defer close(c.done)
		defer conn.Close()
		defer cut()
		if err := c.run(stopped); err != nil {
			c.err = fmt.Errorf("testbed: conversation %s with %s: after %d bytes: %w",
				c.Local(), config.To, c.Moved(), errors.Join(err, ctx.Err()))
		}
	}()
	return c, nil
}

// MustConverse is Converse for tests; the connection is broken off when the
// test ends, unless it was finished.
func (n *Namespace) MustConverse(t TB, config ConversationConfig) *Conversation {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	c, err := n.Converse(ctx, config)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { cancel(); <-c.done })
	return c
}

// Moved is the number of bytes that have come back so far.
func (c *Conversation) Moved() int64 { return c.moved.Load() }

// Local is the client's end of the connection.
func (c *Conversation) Local() netip.AddrPort { return addrPort(c.conn.LocalAddr()) }

// Progress makes a condition for Await: more bytes came back than now.
func (c *Conversation) Progress(more int64) func() error {
	goal := c.Moved() + more
	return func() error {
		if moved := c.Moved(); moved < goal {
			return fmt.Errorf("conversation of %s stands at %d bytes, short of %d", c.Local(), moved, goal)
		}
		return nil
	}
}

// Finish ends the conversation: nil if all that was sent came back, unchanged,
// and the connection could be closed orderly within the timeout.
func (c *Conversation) Finish(timeout time.Duration) error {
	_ = c.conn.SetDeadline(time.Now().Add(timeout)) // it may be over: then err tells
	c.stop()
	<-c.done
	return c.err
}

// run talks until ctx ends, and then waits for what is still under way.
func (c *Conversation) run(ctx context.Context) error {
	sent, failed := sha256.New(), make(chan error, 1)
	go func() { failed <- c.talk(ctx, sent) }()
	heard := sha256.New()
	_, err := io.Copy(io.MultiWriter(heard, counting{&c.moved}), c.conn)
	if err == nil && ctx.Err() == nil {
		err = errors.New("the server ended it")
	}
	c.stop()
	if err := errors.Join(err, <-failed); err != nil {
		return err
	}
	return sameHash(heard, sent)
}

// talk sends until ctx ends.
func (c *Conversation) talk(ctx context.Context, sent hash.Hash) error {
	if _, err := io.WriteString(c.conn, "ECHO\n"); err != nil {
		return err
	}
	const endless = 1 << 62
	stream := newPaced(ctx, newStream(c.config.Seed, endless), c.config.Rate)
	if _, err := io.Copy(io.MultiWriter(c.conn, sent), stream); !errors.Is(err, context.Canceled) {
		return err
	}
	return c.conn.CloseWrite()
}
