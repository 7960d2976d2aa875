package testbed

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
)

// TransferConfig describes one long TCP connection to a Server.
type TransferConfig struct {
	// From is the client's address and port; the zero value lets the kernel choose.
	From netip.AddrPort
	// To is the Server.
	To netip.AddrPort
	// Size is how many bytes to move.
	Size int64
	// Rate bounds the bytes a second; 0 is as fast as possible.
	Rate int64
	// Seed chooses the pseudo-random stream.
	Seed uint64
	// Upload sends the stream to the server instead of fetching it.
	Upload bool
}

// Transfer is a running transfer whose content is verified at its receiving end.
type Transfer struct {
	config TransferConfig
	conn   net.Conn
	moved  atomic.Int64
	done   chan struct{}
	err    error // valid once done is closed
}

// Transfer connects from the namespace and starts to move the stream in the
// background. Cancelling ctx breaks the connection off.
func (n *Namespace) Transfer(ctx context.Context, config TransferConfig) (*Transfer, error) {
	conn, err := n.Dial(ctx, "tcp", config.From, config.To)
	if err != nil {
		return nil, fmt.Errorf("testbed: transfer: %w", err)
	}
	t := &Transfer{config: config, conn: conn, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	go func() {
		defer close(t.done)
		defer conn.Close()
		defer stop()
		if err := t.run(ctx); err != nil {
			t.err = fmt.Errorf("testbed: transfer %s: after %d of %d bytes: %w",
				config.To, t.Moved(), config.Size, errors.Join(err, ctx.Err()))
		}
	}()
	return t, nil
}

// MustTransfer is Transfer for tests; the connection is broken off when the
// test ends, unless it is complete.
func (n *Namespace) MustTransfer(t TB, config TransferConfig) *Transfer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	transfer, err := n.Transfer(ctx, config)
	if err != nil {
		cancel()
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { cancel(); <-transfer.done })
	return transfer
}

// Moved is the number of bytes received so far, or sent so far by an upload.
func (t *Transfer) Moved() int64 { return t.moved.Load() }

// Local is the client's end of the connection.
func (t *Transfer) Local() netip.AddrPort { return addrPort(t.conn.LocalAddr()) }

// Done is closed when the transfer has ended, well or not.
func (t *Transfer) Done() <-chan struct{} { return t.done }

// Wait waits for the end: nil if every byte arrived as it was sent.
func (t *Transfer) Wait() error {
	<-t.done
	return t.err
}

// Progress makes a condition for Await: more bytes than now, a transfer that
// failed excluded.
func (t *Transfer) Progress(more int64) func() error {
	goal := min(t.Moved()+more, t.config.Size)
	return func() error {
		if moved := t.Moved(); moved < goal {
			return fmt.Errorf("transfer stands at %d bytes, short of %d", moved, goal)
		}
		return nil
	}
}

func (t *Transfer) run(ctx context.Context) error {
	if t.config.Upload {
		return t.upload(ctx)
	}
	c := t.config
	if _, err := fmt.Fprintf(t.conn, "GET %d %d %d\n", c.Size, c.Rate, c.Seed); err != nil {
		return err
	}
	return verify(t.conn, c.Seed, c.Size, &t.moved)
}

func (t *Transfer) upload(ctx context.Context) error {
	c := t.config
	if _, err := fmt.Fprintf(t.conn, "PUT %d %d\n", c.Size, c.Seed); err != nil {
		return err
	}
	stream := io.TeeReader(newPaced(ctx, newStream(c.Seed, c.Size), c.Rate), counting{&t.moved})
	if _, err := io.Copy(t.conn, stream); err != nil {
		return err
	}
	if answer, err := bufio.NewReader(t.conn).ReadString('\n'); err != nil || answer != "ok\n" {
		return fmt.Errorf("server refused the content: %q, %w", answer, err)
	}
	return nil
}

// newStream is the pseudo-random stream of a seed.
func newStream(seed uint64, size int64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return io.LimitReader(rand.NewChaCha8(key), size)
}

// verify reads to the end and compares the SHA-256 of what arrived with that of
// the stream. It counts the bytes into moved, if that is not nil.
func verify(from io.Reader, seed uint64, size int64, moved *atomic.Int64) error {
	var ignored atomic.Int64
	if moved == nil {
		moved = &ignored
	}
	got := sha256.New()
	n, err := io.Copy(io.MultiWriter(got, counting{moved}), from)
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
	}
	want := sha256.New()
	if _, err := io.Copy(want, newStream(seed, size)); err != nil {
		return err
	}
	return sameHash(got, want)
}

func sameHash(got, want hash.Hash) error {
	if g, w := got.Sum(nil), want.Sum(nil); string(g) != string(w) {
		return fmt.Errorf("content differs: sha256 %x, not %x", g, w)
	}
	return nil
}

// counting counts what is written to it.
type counting struct{ bytes *atomic.Int64 }

func (c counting) Write(p []byte) (int, error) {
	c.bytes.Add(int64(len(p)))
	return len(p), nil
}

func addrPort(addr net.Addr) netip.AddrPort {
	parsed, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(parsed.Addr().Unmap(), parsed.Port())
}
