package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
)

// feed is how fast flows are sent to a node that is being prepared: slowly
// enough for both systems to take them all.
const feed = 20000

// onOne runs fn with one node, which knows n flows of a third, and with that
// third's replicator. Only this node works.
func onOne(s system, o options, shape testbed.Synthetic, n int, fn func(p *pair, r *replicator) error) error {
	r, err := newRig()
	if err != nil {
		return err
	}
	p := &pair{rig: r}
	defer func() {
		if p.two != nil {
			p.two.Close()
		}
		r.Close()
	}()
	if p.two, err = s.Start(r.fw2, o); err != nil {
		return err
	}
	third, err := newReplicator(r.fw1)
	if err != nil {
		return err
	}
	defer third.Close()
	if err := third.Send(shape, 0, n, feed); err != nil {
		return err
	}
	if n > 0 && !o.WriteThrough {
		if err := p.awaitExternal(n); err != nil {
			return err
		}
	}
	return fn(p, third)
}

// commit measures how fast a hold cache's flows come into the kernel, from the
// command to the last entry.
func commit(n int, shape testbed.Synthetic, at string) measurement {
	return func(s system, add func(figure, at string, v float64)) error {
		return onOne(s, options{}, shape, n, func(p *pair, _ *replicator) error {
			begin := time.Now()
			failed := make(chan error, 1)
			go func() { failed <- p.two.Commit() }()
			err := testbed.Await(patience, func() error {
				have, err := p.fw2.Count()
				if err == nil && have < n {
					err = fmt.Errorf("%d of %d flows are in the kernel", have, n)
				}
				return err
			})
			add("commit", at, float64(n)/time.Since(begin).Seconds())
			return errors.Join(err, <-failed)
		})
	}
}

// kernelCommit measures the most that the kernel takes from one sender who
// batches, with nobody listening: the limit of every commit.
func kernelCommit(n int, shape testbed.Synthetic, at string) measurement {
	return func(_ system, add func(figure, at string, v float64)) error {
		r, err := newRig()
		if err != nil {
			return err
		}
		defer r.Close()
		begin := time.Now()
		if err := r.fw2.Inject(n, shape); err != nil {
			return err
		}
		add("commit", at, float64(n)/time.Since(begin).Seconds())
		return nil
	}
}

// bulk measures how long it takes a node to tell a peer that knows nothing
// about n flows.
func bulk(n int) measurement {
	return func(s system, add func(figure, at string, v float64)) error {
		r, err := newRig()
		if err != nil {
			return err
		}
		p := &pair{rig: r}
		defer func() {
			for _, n := range []peer{p.one, p.two} {
				if n != nil {
					n.Close()
				}
			}
			r.Close()
		}()
		if err := r.fw1.Inject(n, testbed.Synthetic{}); err != nil {
			return err
		}
		if p.one, err = s.Start(r.fw1, options{}); err != nil {
			return err
		}
		if err := testbed.Await(patience, func() error {
			c, err := p.one.Internal()
			if err == nil && c.Flows < n {
				err = fmt.Errorf("%d of %d flows are in the cache", c.Flows, n)
			}
			return err
		}); err != nil {
			return err
		}
		if p.two, err = s.Start(r.fw2, options{}); err != nil {
			return err
		}
		begin := time.Now()
		failed := make(chan error, 1)
		go func() { failed <- p.one.Bulk() }()
		have, took := p.settled(n, begin)
		add("bulk", fmt.Sprintf("%d flows", n), took.Seconds())
		add("bulk lost", fmt.Sprintf("%d flows", n), float64(n-have))
		return <-failed
	}
}

// settled waits until the second node knows n flows, or until it learns no more
// for 5 s, and returns how many it knows and how long the last ones took.
func (p *pair) settled(n int, begin time.Time) (have int, took time.Duration) {
	last := time.Now()
	for have < n && time.Since(last) < 5*time.Second {
		if c, err := p.two.External(); err == nil && c.Flows != have {
			have, last = c.Flows, time.Now()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return have, last.Sub(begin)
}

// writeThrough ramps the flows that a peer sends until not all of them come
// into the kernel at once.
func writeThrough(s system, add func(figure, at string, v float64)) error {
	best := 0
	for rate := 10000; rate <= 320000; rate = rate * 5 / 4 {
		lost := 0
		n := rate // a second of it
		err := onOne(s, options{WriteThrough: true}, testbed.Synthetic{}, 0, func(p *pair, third *replicator) error {
			begin := time.Now()
			if err := third.Send(testbed.Synthetic{}, 0, n, rate); err != nil {
				return err
			}
			if made := float64(n) / time.Since(begin).Seconds(); made < 0.9*float64(rate) {
				return fmt.Errorf("%w: %.0f flows/s instead of %d", errTooSlow, made, rate)
			}
			lost = n - p.inKernel(n)
			return nil
		})
		if errors.Is(err, errTooSlow) {
			break
		}
		if err != nil {
			return err
		}
		if lost > 0 {
			break
		}
		best = rate
	}
	add("write-through", "", float64(best))
	return nil
}

// errTooSlow: the machine can't make the load.
var errTooSlow = errors.New("bench: the load can't be made")

// inKernel waits until the second node's kernel has n flows, or a second passed
// without another, and returns how many it has.
func (p *pair) inKernel(n int) (have int) {
	last := time.Now()
	for have < n && time.Since(last) < time.Second {
		if now, err := p.fw2.Count(); err == nil && now != have {
			have, last = now, time.Now()
		}
		time.Sleep(5 * time.Millisecond)
	}
	return have
}
