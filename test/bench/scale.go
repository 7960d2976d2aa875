package main

import (
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
)

// memory measures what a flow costs in the process that keeps the peers' cache.
func memory(n int) measurement {
	return func(s system, add func(figure, at string, v float64)) error {
		return onSecond(s, options{Limit: 2*n + warmUp}, func(p *pair, third *replicator) error {
			each, err := memoryOf(p.two.External, n, func() error {
				if err := third.Send(testbed.Synthetic{}, 0, n, feed); err != nil {
					return err
				}
				return p.awaitExternal(warmUp + n)
			})
			add(figMemory, flows(n), each)
			return err
		})
	}
}

// memoryOf is what each of the n flows that fill brings takes of the memory of
// a cache's process.
func memoryOf(where func() (cache, error), n int, fill func() error) (float64, error) {
	c, err := where()
	if err != nil {
		return 0, err
	}
	before, _, err := testbed.Memory(c.PID)
	if err != nil {
		return 0, err
	}
	if err := fill(); err != nil {
		return 0, err
	}
	after, _, err := testbed.Memory(c.PID)
	return float64(after-before) / float64(n), err
}

// growth measures the sender under load, with n flows already in its table.
func growth(n, rate int, duration time.Duration) measurement {
	return func(s system, add func(figure, at string, v float64)) error {
		return onRig(func(p *pair) error {
			if err := p.startOne(s, options{Limit: 2*n + 1<<18}); err != nil {
				return err
			}
			injector, err := testbed.NewInjector(p.fw1.Namespace, testbed.Synthetic{})
			if err != nil {
				return err
			}
			defer injector.Close()
			injector.Rate = feed
			each, err := memoryOf(p.one.Internal, n, func() error {
				if err := injector.Create(0, n); err != nil {
					return err
				}
				return p.awaitInternal(n)
			})
			if err != nil {
				return err
			}
			add(figMemoryBySize, flows(n), each)
			used, err := p.senderCPU(rate, duration)
			add(figCPUBySize, flows(n), used)
			return err
		})
	}
}

// senderCPU is the first node's CPU in µs an event, after a warm-up.
func (p *pair) senderCPU(rate int, duration time.Duration) (float64, error) {
	if _, err := p.generator.Connect(rate/2, rate); err != nil {
		return 0, err
	}
	time.Sleep(200 * time.Millisecond)
	before, err := testbed.CPUTime(p.one.PIDs()...)
	if err != nil {
		return 0, err
	}
	n := int(float64(rate) * duration.Seconds())
	if _, err := p.generator.Connect(n, rate); err != nil {
		return 0, err
	}
	time.Sleep(200 * time.Millisecond)
	after, err := testbed.CPUTime(p.one.PIDs()...)
	return micro(after-before) / float64(n*EventsPerConnection), err
}

// fastest is a rate that no machine makes: the generator's own limit decides.
const fastest = 1 << 20

// ramp raises the rate of kernel events (flows made over ctnetlink) until the
// peer does not learn of all. Then it makes them as fast as it can.
func ramp(s system, add func(figure, at string, v float64)) error {
	best, err := climb(10000, fastest, func(rate int) (made float64, whole bool, err error) {
		made, lost, err := events(s, rate, 2*min(rate, 250000))
		return made, lost == 0, err
	})
	if err != nil {
		return err
	}
	add(figRate, "", best)
	_, lost, err := events(s, fastest, 500000)
	add(figRateLost, "", 100*float64(lost)/500000)
	return err
}

// events makes n flows at a rate and returns the rate that it came to, and how
// many of them the peer did not learn of.
func events(s system, rate, n int) (made float64, lost int, err error) {
	err = onPair(s, options{}, func(p *pair) error {
		if made, err = makeFlows(p.fw1, rate, n); err != nil {
			return err
		}
		have, _ := settled(warmUp+n, 3*time.Second, p.external)
		lost = warmUp + n - have
		return nil
	})
	return made, lost, err
}

// makeFlows makes flows on a firewall and returns the rate that it came to.
func makeFlows(fw *testbed.Firewall, rate, n int) (float64, error) {
	injector, err := testbed.NewInjector(fw.Namespace, testbed.Synthetic{})
	if err != nil {
		return 0, err
	}
	defer injector.Close()
	injector.Rate = rate
	begin := time.Now()
	if err := injector.Create(0, n); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}

// kernelRate is the generator's own limit: with nobody listening.
func kernelRate(_ system, add func(figure, at string, v float64)) error {
	return onRig(func(p *pair) error {
		if err := p.fw1.Inject(warmUp, warmShape); err != nil {
			return err
		}
		made, err := makeFlows(p.fw1, fastest, 500000)
		add(figRate, "", made)
		return err
	})
}
