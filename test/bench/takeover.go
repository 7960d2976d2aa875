package main

import (
	"errors"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
)

// commit measures how fast a hold cache's flows come into the kernel, from the
// command of a takeover to the last entry.
func commit(n int, shape testbed.Synthetic, at string) measurement {
	return func(s system, add func(figure, at string, v float64)) error {
		return onSecond(s, options{}, func(p *pair, third *replicator) error {
			if err := p.two.Commit(); err != nil {
				return err
			}
			if err := p.awaitKernel(warmUp); err != nil {
				return err
			}
			if err := third.Send(shape, 0, n, feed); err != nil {
				return err
			}
			if err := p.awaitExternal(warmUp + n); err != nil {
				return err
			}
			begin := time.Now()
			failed := make(chan error, 1)
			go func() { failed <- p.two.TakeOver() }()
			err := p.awaitKernel(warmUp + n)
			add(figCommit, at, float64(n)/time.Since(begin).Seconds())
			return errors.Join(err, <-failed)
		})
	}
}

// kernelCommit measures the most that the kernel takes from one sender who
// batches, with nobody listening: the limit of every commit.
func kernelCommit(n int, shape testbed.Synthetic, at string) measurement {
	return func(_ system, add func(figure, at string, v float64)) error {
		return onRig(func(p *pair) error {
			if err := p.fw2.Inject(warmUp, warmShape); err != nil {
				return err
			}
			begin := time.Now()
			if err := p.fw2.Inject(n, shape); err != nil {
				return err
			}
			add(figCommit, at, float64(n)/time.Since(begin).Seconds())
			return nil
		})
	}
}

// bulkRounds bounds how often a bulk update is sent until the peer has all.
const bulkRounds = 20

// bulk measures how long it takes a node to tell a peer about n flows that the
// peer does not know: all of them, so an update that lost some is sent again. The
// time in which nothing comes, until that shows, does not count. A peer that never
// has all has no figure.
func bulk(n int) measurement {
	return func(s system, add func(figure, at string, v float64)) error {
		return onRig(func(p *pair) error {
			if err := p.fw1.Inject(n, testbed.Synthetic{}); err != nil {
				return err
			}
			if err := p.startOne(s, options{NoResync: true}); err != nil {
				return err
			}
			if err := p.awaitInternal(n); err != nil {
				return err
			}
			if err := p.startTwo(s, options{NoResync: true}); err != nil {
				return err
			}
			if err := p.warm(); err != nil {
				return err
			}
			have, took := 0, time.Duration(0)
			for round := 0; round < bulkRounds && have < warmUp+n; round++ {
				begin, failed := time.Now(), make(chan error, 1)
				go func() { failed <- p.one.Bulk() }()
				var last time.Time
				have, last = settled(warmUp+n, 2*time.Second, p.external)
				took += last.Sub(begin)
				if round == 0 {
					add(figBulkLost, flows(n), float64(warmUp+n-have))
				}
				if err := <-failed; err != nil {
					return err
				}
			}
			if have >= warmUp+n {
				add(figBulk, flows(n), took.Seconds())
			}
			return nil
		})
	}
}

// writeThrough raises the rate of flows that a peer sends until not all of them
// come into the kernel at once.
func writeThrough(s system, add func(figure, at string, v float64)) error {
	best, err := climb(5000, 640000, func(rate int) (made float64, whole bool, err error) {
		err = onSecond(s, options{WriteThrough: true}, func(p *pair, third *replicator) error {
			n := rate // a second of it
			begin := time.Now()
			if err := third.Send(testbed.Synthetic{}, 0, n, rate); err != nil {
				return err
			}
			made = float64(n) / time.Since(begin).Seconds()
			have, _ := settled(warmUp+n, time.Second, p.fw2.Count)
			whole = have >= warmUp+n
			return nil
		})
		return made, whole, err
	})
	if err != nil {
		return err
	}
	add(figWriteThrough, "", best)
	return nil
}
