package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
)

// memory measures what a flow costs in the process that keeps the peers' cache.
func memory(n int) measurement {
	return func(s system, add func(figure, at string, v float64)) error {
		return onOne(s, options{Limit: 2 * n}, testbed.Synthetic{}, 0, func(p *pair, third *replicator) error {
			empty, err := p.two.External()
			if err != nil {
				return err
			}
			before, _, err := testbed.Memory(empty.PID)
			if err != nil {
				return err
			}
			if err := errors.Join(third.Send(testbed.Synthetic{}, 0, n, feed), p.awaitExternal(n)); err != nil {
				return err
			}
			after, _, err := testbed.Memory(empty.PID)
			add("memory a flow", fmt.Sprintf("%d flows", n), float64(after-before)/float64(n))
			return err
		})
	}
}

// growth measures the sender under load, with n flows already in its table.
func growth(n, rate int, duration time.Duration) measurement {
	return func(s system, add func(figure, at string, v float64)) error {
		r, err := newRig()
		if err != nil {
			return err
		}
		p := &pair{rig: r}
		defer func() {
			if p.one != nil {
				p.one.Close()
			}
			r.Close()
		}()
		if p.one, err = s.Start(r.fw1, options{Limit: 2*n + 1<<18}); err != nil {
			return err
		}
		empty, err := p.one.Internal()
		if err != nil {
			return err
		}
		before, _, err := testbed.Memory(empty.PID)
		if err != nil {
			return err
		}
		injector, err := testbed.NewInjector(r.fw1.Namespace, testbed.Synthetic{})
		if err != nil {
			return err
		}
		defer injector.Close()
		injector.Rate = feed
		if err := errors.Join(injector.Create(0, n), p.awaitInternal(n)); err != nil {
			return err
		}
		after, _, err := testbed.Memory(empty.PID)
		if err != nil {
			return err
		}
		add("memory a flow, by size", fmt.Sprintf("%d flows", n), float64(after-before)/float64(n))
		return p.senderCPU(rate, duration, func(v float64) { add("sender CPU, by size", fmt.Sprintf("%d flows", n), v) })
	}
}

func (p *pair) awaitInternal(n int) error {
	return testbed.Await(patience, func() error {
		c, err := p.one.Internal()
		if err == nil && c.Flows < n {
			err = fmt.Errorf("%d of %d flows are in the cache", c.Flows, n)
		}
		return err
	})
}

func (p *pair) senderCPU(rate int, duration time.Duration, add func(float64)) error {
	if _, err := p.generator.Connect(rate/2, rate); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	before, err := testbed.CPUTime(p.one.PIDs()...)
	if err != nil {
		return err
	}
	n := int(float64(rate) * duration.Seconds())
	if _, err := p.generator.Connect(n, rate); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	after, err := testbed.CPUTime(p.one.PIDs()...)
	add(micro(after-before) / float64(n*EventsPerConnection))
	return err
}

// ramp raises the rate of kernel events (flows made over ctnetlink) until the
// peer does not learn of all within 3 s after the last.
func ramp(s system, add func(figure, at string, v float64)) error {
	best := 0
	for rate := 20000; rate <= 640000; rate = rate * 5 / 4 {
		have, n, made := 0, 2*rate, 0.0
		err := onPair(s, options{}, func(p *pair) error {
			injector, err := testbed.NewInjector(p.fw1.Namespace, testbed.Synthetic{})
			if err != nil {
				return err
			}
			defer injector.Close()
			injector.Rate = rate
			begin := time.Now()
			if err := injector.Create(0, n); err != nil {
				return err
			}
			made = float64(n) / time.Since(begin).Seconds()
			for last := time.Now(); have < n && time.Since(last) < 3*time.Second; time.Sleep(10 * time.Millisecond) {
				if c, err := p.two.External(); err == nil {
					have = c.Flows
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if have < n {
			break
		}
		best = int(made)
		if made < 0.9*float64(rate) { // all that the machine makes
			break
		}
	}
	add("event rate without loss", "", float64(best))
	return nil
}
