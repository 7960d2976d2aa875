package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// A ProbeConfig says which plugin to start, and with what around it.
type ProbeConfig struct {
	Path    string       // of the executable
	Args    []string     // with args[0]; nil: the path
	Kind    plugin.Kind  // that it must say it is; "": any
	Type    string       // of a Kind
	Outputs int          // stages below it: none for a sink
	Input   bool         // there is a stage above: not for a source
	Log     *slog.Logger // what it writes goes there, as in a runner; nil: nowhere
	Level   slog.Leveler // of its log; nil: info

	name  string         // "": the executable's
	rules *confine.Rules // nil: it is not confined
	// vendors is the stage of a vendor's plugin: its program must be what that
	// is locked to. Nil: what lies at Path is executed.
	vendors *pipeline.Stage
}

// A Probe is one stage by hand: a plugin's process, started, wired, spoken to and
// ended as a runner does it, by the same code, for the conformance kit and for
// tests of plugins. Nothing supervises it. Its methods are for one goroutine, but
// for those of the client.
type Probe struct {
	stagepb.StageClient // of the process that was launched last
	config              ProbeConfig
	spawner             *spawner
	input               *edge
	outputs             []*edge
	process             *process
	image               *image // of a vendor's plugin, once launched
	generation          uint32
}

// NewProbe makes the edges and no process yet. Close must follow.
func NewProbe(c ProbeConfig) (*Probe, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Args == nil {
		c.Args = []string{c.Path}
	}
	s, err := newSpawner()
	if err != nil {
		return nil, err
	}
	p := &Probe{config: c, spawner: s}
	if c.Input {
		if p.input, err = newEdge("to the probe"); err != nil {
			p.Close()
			return nil, err
		}
	}
	for range c.Outputs {
		e, err := newEdge("from the probe")
		if err != nil {
			p.Close()
			return nil, err
		}
		p.outputs = append(p.outputs, e)
	}
	return p, nil
}

// Launch starts a process on the edges, after the one before it has gone, and
// returns how it describes itself.
func (p *Probe) Launch(ctx context.Context) (*stagepb.Description, error) {
	files, _, _ := p.wiring().descriptors()
	name := p.config.name
	if name == "" {
		name = filepath.Base(p.config.Args[0])
	}
	if err := p.openImage(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	process, err := startProcess(ctx, p.spawner, processConfig{
		name: name, rules: p.config.rules, path: p.config.Path, args: p.config.Args, kind: p.config.Kind, typ: p.config.Type,
		files: files, log: p.config.Log, level: p.config.Level, image: p.image,
	})
	if err != nil {
		return nil, err
	}
	p.generation++
	p.process, p.StageClient = process, process.StageClient
	return process.description, nil
}

// openImage takes the copy of a vendor's program that all launches execute.
func (p *Probe) openImage() (err error) {
	if p.config.vendors == nil || p.image != nil {
		return nil
	}
	i, err := openImage(p.config.Path)
	if err == nil {
		p.image = i
		err = i.check(p.config.vendors)
	}
	return err
}

// wiring is a place with the probe's edges.
func (p *Probe) wiring() *place { return &place{input: p.input, outputs: p.outputs} }

// Begin configures the process and starts it as a stage. The descriptors and the
// generation of r are filled in.
func (p *Probe) Begin(ctx context.Context, config []byte, r *stagepb.StartRequest) error {
	_, r.Inputs, r.Outputs = p.wiring().descriptors()
	r.Generation = p.generation
	if err := configureStage(ctx, p.process, config); err != nil {
		return err
	}
	return startStage(ctx, p.process, r)
}

// Send writes one packet into the edge above the stage and waits for room until
// ctx ends.
func (p *Probe) Send(ctx context.Context, packet []byte) error {
	var err error
	for {
		withFD(p.input.write, func(fd int) { err = unix.Send(fd, packet, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) })
		switch err {
		case unix.EINTR:
		case unix.EAGAIN:
			if err := awaitEdge(ctx, p.input, unix.POLLOUT); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// Receive reads one packet from the edge below the stage numbered so, from 0, and
// waits for it until ctx ends. The packet may be one byte longer than a batch.
func (p *Probe) Receive(ctx context.Context, output int) ([]byte, error) {
	buf := make([]byte, flow.MaxBatch+1)
	for {
		n, err := 0, error(nil)
		withFD(p.outputs[output].read, func(fd int) { n, _, err = unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT) })
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if err := awaitEdge(ctx, p.outputs[output], unix.POLLIN); err != nil {
				return nil, err
			}
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.EOF
		default:
			return buf[:n], nil
		}
	}
}

// Empty says whether all that the stage has sent on an output was received.
func (p *Probe) Empty(output int) (empty bool) {
	withFD(p.outputs[output].read, func(fd int) {
		n, err := 0, error(unix.EINTR)
		for err == unix.EINTR {
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		}
		empty = n == 0 && err == nil
	})
	return empty
}

// awaitEdge waits until an end of an edge can be written to or read from.
func awaitEdge(ctx context.Context, e *edge, events int16) error {
	file := e.read
	if events == unix.POLLOUT {
		file = e.write
	}
	for ctx.Err() == nil {
		n, err := 0, errors.New("the edge is closed")
		withFD(file, func(fd int) {
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, 20) // milliseconds, to see ctx end
		})
		switch {
		case err == unix.EINTR:
		case err != nil || n > 0:
			return err
		}
	}
	return ctx.Err()
}

// End ends the stage's input: it reads what is queued, and then the end.
func (p *Probe) End() { p.input.end() }

// EndOutput ends an edge below the stage, as it is after the stage has exited, so
// that Receive comes to an end.
func (p *Probe) EndOutput(output int) { p.outputs[output].end() }

// Queued returns how many bytes wait in the stage's input.
func (p *Probe) Queued() uint64 { return p.input.queued() }

// CutLifeline does what happens to a stage when its runner is gone.
func (p *Probe) CutLifeline() { p.spawner.keep.Close() }

// PID returns the process's id.
func (p *Probe) PID() int { return p.process.pid() }

// Exited is closed when the process has ended; Err then says how: nil is a status
// of 0.
func (p *Probe) Exited() <-chan struct{} { return p.process.exited }

// Err says how the process ended, after Exited.
func (p *Probe) Err() error { return p.process.err }

// LastLines returns what the process wrote to standard error last, on one line.
func (p *Probe) LastLines() string { return p.process.stderr.tail() }

// DroppedLines returns how many lines of its log were too many.
func (p *Probe) DroppedLines() uint64 { return p.process.stderr.droppedLines() }

// Memory returns the process's resident memory in bytes, 0 if it is gone.
func (p *Probe) Memory() uint64 {
	_, memory := usage(p.process.pid())
	return memory
}

// Kill ends the process now and waits for its end.
func (p *Probe) Kill() {
	if p.process != nil {
		p.process.kill()
	}
}

// AwaitExit waits until the process has ended and returns how.
func (p *Probe) AwaitExit(patience time.Duration) error {
	select {
	case <-p.process.exited:
		go p.process.client.Kill() // frees the connection
		return p.process.err
	case <-time.After(patience):
		return fmt.Errorf("it still runs after %v", patience)
	}
}

// Close ends the process and leaves nothing behind.
func (p *Probe) Close() {
	p.Kill()
	if p.image != nil {
		p.image.close()
	}
	for _, e := range append(p.outputs, p.input) {
		if e != nil {
			e.close()
		}
	}
	p.spawner.close()
}
