package conntrackdcli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/control"
)

// A Client carries out conntrackd's commands on the runner of a Setup.
type Client struct {
	control *control.Client
	setup   Setup
	out     *bufio.Writer
}

// NewClient returns a client that writes to out.
func NewClient(setup Setup, out io.Writer) *Client {
	return &Client{control.NewClient(setup.Socket), setup, bufio.NewWriterSize(out, 64<<10)}
}

// ErrNoDaemon is what conntrackd says when it can't reach the daemon.
var ErrNoDaemon = errors.New("can't connect: is conntrackd running? appropriate permissions?")

// Do carries out the command of o. What conntrackd has nothing to do for, since
// the configuration has no such part, is done.
func (c *Client) Do(ctx context.Context, o Options) error {
	err := errors.Join(c.do(ctx, o), c.out.Flush())
	if errors.Is(err, control.ErrNoRunner) || errors.Is(err, control.ErrDenied) {
		return ErrNoDaemon
	}
	return err
}

func (c *Client) do(ctx context.Context, o Options) error {
	switch o.Command {
	case 'i':
		return c.internal(ctx, o)
	case 'e':
		return c.external(ctx, o)
	case 's':
		return c.statistics(ctx, o.Which)
	case 'k':
		return c.kill(ctx)
	case 'F':
		return c.flushKernel(ctx, o.Table)
	case 'f':
		return c.flush(ctx, o.Which)
	case 'c':
		return c.act(ctx, c.setup.ExternalCache, control.Request{Command: "commit"})
	case 'R':
		return c.control.Do(ctx, control.Request{Command: "resync"}, nil)
	case 'B':
		return c.act(ctx, true, control.Request{Command: "bulk"})
	case 'n':
		return c.act(ctx, true, control.Request{Command: "request-resync", Background: true})
	case 't':
		return c.act(ctx, true, control.Request{Command: "purge", Background: true})
	}
	return fmt.Errorf("no command -%c", o.Command)
}

// act has the runner carry out a command of a Sync section, or only answer if
// the configuration has nothing that it is about.
func (c *Client) act(ctx context.Context, concerns bool, r control.Request) error {
	if !c.setup.Sync || !concerns {
		_, err := c.control.Status(ctx)
		return err
	}
	return c.control.Do(ctx, r, nil)
}

func (c *Client) flush(ctx context.Context, which string) error {
	r := control.Request{Command: "flush"}
	if !c.setup.Sync && which != "external" {
		r.Targets = []string{statsPipeline}
		return c.control.Do(ctx, r, nil)
	}
	if c.setup.InternalCache && which != "external" {
		r.Targets = append(r.Targets, localPipeline)
	}
	if c.setup.ExternalCache && which != "internal" {
		r.Targets = append(r.Targets, peersPipeline)
	}
	return c.act(ctx, len(r.Targets) > 0, r)
}

// kill ends the runner and waits until its process is gone, and with it the
// lock file: whoever starts another right away finds the place free.
func (c *Client) kill(ctx context.Context) error {
	status, err := c.control.Status(ctx)
	if err != nil {
		return err
	}
	process, err := unix.PidfdOpen(status.PID, 0)
	if err != nil {
		process = -1 // of another namespace of processes: the answer must do
	} else {
		defer unix.Close(process)
	}
	if err := c.control.Do(ctx, control.Request{Command: "stop"}, nil); err != nil && !errors.Is(err, control.ErrCut) {
		return err
	}
	if process >= 0 {
		const wait = 10 * time.Second
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, int(wait.Milliseconds()))
	}
	return nil
}

func (c *Client) statistics(ctx context.Context, which string) error {
	status, err := c.control.Status(ctx)
	if err != nil {
		return err
	}
	n := node{Status: status, setup: c.setup}
	if which == "link" {
		if err := c.inRunnersNetwork(ctx, n.readLinks); err != nil {
			return err
		}
	}
	_, err = c.out.Write(n.appendStatistics(nil, which, time.Now()))
	return err
}

// internal dumps what this node's kernel tracks.
func (c *Client) internal(ctx context.Context, o Options) error {
	switch {
	case !c.setup.Sync:
		return c.dump(ctx, statsPipeline, o, false)
	case c.setup.InternalCache:
		return c.dump(ctx, localPipeline, o, false)
	}
	return c.dumpKernel(ctx, o)
}

// external dumps what peers have sent; without an external cache it is in the
// kernel, and conntrackd prints nothing.
func (c *Client) external(ctx context.Context, o Options) error {
	if !c.setup.Sync || !c.setup.ExternalCache {
		_, err := c.control.Status(ctx)
		return err
	}
	return c.dump(ctx, peersPipeline, o, true)
}

// dump copies a pipeline's cache, line by line.
func (c *Client) dump(ctx context.Context, pipeline string, o Options, external bool) error {
	request := control.DumpRequest{Target: pipeline, JSON: true}
	if o.Table == Expectations {
		request.What = control.DumpExpectations
	}
	reader, writer := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := c.control.Dump(ctx, request, writer)
		writer.Close()
		sent <- err
	}()
	copied := c.copyEntries(reader, o, external)
	reader.CloseWithError(copied)
	if err := <-sent; err != nil && copied == nil {
		return err
	}
	return copied
}

// copyEntries writes the entries of a dump.
func (c *Client) copyEntries(in io.Reader, o Options, external bool) error {
	var line []byte
	for decoder := json.NewDecoder(in); ; {
		var e Entry
		err := decoder.Decode(&e)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("dump: %w", err)
		}
		if line = e.AppendText(line[:0], external); o.XML {
			line = e.AppendXML(line[:0], external)
		}
		if _, err := c.out.Write(line); err != nil {
			return err
		}
	}
}
