package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
)

// A pair is a rig with the nodes that a measurement starts on it.
type pair struct {
	*rig
	one, two peer
}

// patience bounds every wait for something that must happen.
const patience = 2 * time.Minute

// warmUp is how many flows a node has seen before it is measured.
const warmUp = 500

// onRig runs fn on a fresh rig, and closes what fn started.
func onRig(fn func(p *pair) error) error {
	r, err := newRig()
	if err != nil {
		return err
	}
	p := &pair{rig: r}
	return errors.Join(fn(p), p.close())
}

func (p *pair) close() error {
	var errs []error
	for _, n := range []peer{p.one, p.two} {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(append(errs, p.rig.Close())...)
}

// startOne and startTwo run a node on the first and the second firewall.
func (p *pair) startOne(s system, o options) (err error) {
	p.one, err = s.Start(p.fw1, o)
	return err
}

func (p *pair) startTwo(s system, o options) (err error) {
	p.two, err = s.Start(p.fw2, o)
	return err
}

// onPair runs fn with a pair of nodes that know warmUp connections.
func onPair(s system, o options, fn func(p *pair) error) error {
	return onRig(func(p *pair) error {
		if err := p.startOne(s, o); err != nil {
			return err
		}
		if err := p.startTwo(s, o); err != nil {
			return err
		}
		if err := p.warm(); err != nil {
			return err
		}
		return fn(p)
	})
}

// warm makes connections that are not measured, and waits until both nodes
// know them.
func (p *pair) warm() error {
	if _, err := p.generator.Connect(warmUp, warmUp); err != nil {
		return err
	}
	return p.awaitExternal(warmUp)
}

// onSecond runs fn with one node, on the second firewall, which knows warmUp flows of
// a third, and with that third's replicator: only this node works.
func onSecond(s system, o options, fn func(p *pair, third *replicator) error) error {
	return onRig(func(p *pair) error {
		if err := p.startTwo(s, o); err != nil {
			return err
		}
		third, err := newReplicator(p.fw1)
		if err != nil {
			return err
		}
		defer third.Close()
		if err := third.Send(warmShape, 0, warmUp, feed); err != nil {
			return err
		}
		await := p.awaitExternal
		if o.WriteThrough {
			await = p.awaitKernel
		}
		if err := await(warmUp); err != nil {
			return err
		}
		return fn(p, third)
	})
}

// warmShape are the flows of warm-ups: none of those that are measured.
var warmShape = testbed.Synthetic{UDP: true}

// feed is how fast flows are sent to a node that is being prepared: slowly
// enough for both systems to take them all.
const feed = 20000

// awaitExternal waits until the second node knows at least n flows of others.
func (p *pair) awaitExternal(n int) error {
	return awaitCount(n, "flows reached the peer", func() (int, error) {
		c, err := p.two.External()
		return c.Flows, err
	})
}

// awaitInternal waits until the first node knows at least n flows of its own.
func (p *pair) awaitInternal(n int) error {
	return awaitCount(n, "flows are in the cache", func() (int, error) {
		c, err := p.one.Internal()
		return c.Flows, err
	})
}

// awaitKernel waits until the second node's kernel has at least n flows.
func (p *pair) awaitKernel(n int) error {
	return awaitCount(n, "flows are in the kernel", p.fw2.Count)
}

func awaitCount(n int, what string, count func() (int, error)) error {
	return testbed.Await(patience, func() error {
		have, err := count()
		if err == nil && have < n {
			err = fmt.Errorf("%d of %d %s", have, n, what)
		}
		return err
	})
}

// settled waits until count gives n, or no more than before for a while, and
// returns how many it gave last and when it changed.
func settled(n int, idle time.Duration, count func() (int, error)) (have int, last time.Time) {
	last = time.Now()
	for have < n && time.Since(last) < idle {
		if now, err := count(); err == nil && now != have {
			have, last = now, time.Now()
		}
		time.Sleep(5 * time.Millisecond)
	}
	return have, last
}

func (p *pair) external() (int, error) {
	c, err := p.two.External()
	return c.Flows, err
}
