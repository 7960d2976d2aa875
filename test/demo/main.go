// Demo shows a takeover: a client downloads a file from a server through
// firewall 1, which translates the client's address. In the middle firewall 1
// is killed. Firewall 2 takes over, and the same TCP connection goes on.
//
// Everything is real but the cables: the kernel's connection tracking, the
// packets, the processes. Hosts are network namespaces. It needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

const (
	size = 192 << 20 // of the download, in bytes
	rate = 32 << 20  // bytes a second
)

func main() {
	binary := flag.String("sluice", "bin/sluice", "the sluice binary")
	flag.Parse()
	path, err := filepath.Abs(*binary)
	if err == nil {
		ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer cancel()
		d := &demo{ctx: ctx, binary: path, begin: time.Now()}
		err = d.run()
		err = errors.Join(err, d.cleanUp())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// A demo is one run; closers end what it made, in reverse order.
type demo struct {
	ctx     context.Context
	binary  string
	begin   time.Time
	closers []func() error

	pair     *testbed.Pair
	fw1, fw2 *node.Node
	transfer *testbed.Transfer
	killed   time.Time
}

func (d *demo) run() error {
	if err := testbed.Probe(testbed.Kernel); err != nil {
		return fmt.Errorf("this machine can't run it: %w", err)
	}
	for _, step := range []func() error{
		d.build, d.start, d.download, d.replicated, d.kill, d.takeOver, d.finish,
	} {
		err := step()
		if d.ctx.Err() != nil {
			return errInterrupted
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) cleanUp() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i]())
	}
	d.say("cleaned up: no process, no namespace is left")
	return errors.Join(errs...)
}

func (d *demo) say(format string, args ...any) {
	fmt.Printf("%7.3f s  %s\n", time.Since(d.begin).Seconds(), fmt.Sprintf(format, args...))
}

var errInterrupted = errors.New("interrupted")

// await waits for a condition, or for an interrupt.
func (d *demo) await(condition func() error) error {
	return testbed.Await(node.Timeout, func() error {
		if d.ctx.Err() != nil {
			return nil // run sees it
		}
		return condition()
	})
}

func (d *demo) build() (err error) {
	if d.pair, err = testbed.NewPair(testbed.FirewallConfig{SNAT: true}); err != nil {
		return err
	}
	d.closers = append(d.closers, d.pair.Close)
	d.say("built: client %v - firewall 1 and firewall 2 (SNAT to %v) - server %v",
		testbed.ClientAddr.V4.Addr(), testbed.OutsideVIP.V4.Addr(), testbed.ServerAddr.V4.Addr())
	server, err := testbed.NewServer(d.pair.Server, testbed.ServerPort)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, server.Close)
	return d.pair.MoveTo(d.pair.FW1)
}

func (d *demo) start() (err error) {
	for i, fw := range []*testbed.Firewall{d.pair.FW1, d.pair.FW2} {
		n, err := node.Start(d.binary, fw, fmt.Sprintf("firewall%d", i+1), node.Pipelines(nil))
		if err != nil {
			return err
		}
		d.closers = append(d.closers, n.Close)
		pids, err := n.PIDs()
		if err != nil {
			return err
		}
		d.say("sluice runs on firewall %d: 1 runner and %d stages, each a process of its own", i+1, len(pids))
		if i == 0 {
			d.fw1 = n
		} else {
			d.fw2 = n
		}
	}
	return nil
}

func (d *demo) download() (err error) {
	to := netip.AddrPortFrom(testbed.ServerAddr.V4.Addr(), testbed.ServerPort)
	d.transfer, err = d.pair.Client.Transfer(d.ctx, testbed.TransferConfig{To: to, Size: size, Rate: rate, Seed: 42})
	if err != nil {
		return err
	}
	d.say("download of %d MiB begins: one TCP connection from %v", size>>20, d.transfer.Local())
	return d.await(d.transfer.Progress(size / 3))
}

// replicated waits until firewall 2 knows the connection.
func (d *demo) replicated() error {
	err := d.await(func() error {
		table, err := d.fw2.Table("peers")
		if err != nil {
			return err
		}
		flow, err := table.One(func(f testbed.Flow) bool {
			return f.Orig.SrcPort == d.transfer.Local().Port() && f.TCP == testbed.Established
		})
		if err == nil {
			d.say("firewall 2 knows of it: %v", strings.TrimSpace(flow.String()))
		}
		return err
	})
	return err
}

func (d *demo) kill() error {
	d.say("firewall 1 dies at %d MiB: kill -9 of its runner, all its links down", d.transfer.Moved()>>20)
	d.killed = time.Now()
	d.fw1.Kill()
	if err := d.pair.LinksDown(d.pair.FW1); err != nil {
		return err
	}
	return nil
}

func (d *demo) takeOver() error {
	begin := time.Now()
	out, err := d.fw2.Sluice("role", "primary")
	if err != nil {
		return err
	}
	role := time.Since(begin)
	d.say("firewall 2: sluice role primary took %.1f ms:", float64(role.Microseconds())/1000)
	for line := range strings.Lines(out) {
		fmt.Print("             ", line)
	}
	if err := d.pair.MoveTo(d.pair.FW2); err != nil {
		return err
	}
	if err := d.await(d.transfer.Progress(1)); err != nil {
		return fmt.Errorf("the connection did not survive: %w", err)
	}
	d.say("addresses moved to firewall 2; data flows again %.0f ms after the kill (TCP's own retransmission timer included)",
		float64(time.Since(d.killed).Milliseconds()))
	return nil
}

func (d *demo) finish() error {
	if err := d.transfer.Wait(); err != nil {
		return err
	}
	d.say("download complete: %d MiB over the same connection, SHA-256 correct", d.transfer.Moved()>>20)
	return nil
}
