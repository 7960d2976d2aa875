package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
)

// A pair is two nodes of one system on a rig.
type pair struct {
	*rig
	one, two peer
}

// onPair runs fn with a fresh pair of nodes.
func onPair(s system, o options, fn func(p *pair) error) (err error) {
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
		if e := r.Close(); err == nil {
			err = e
		}
	}()
	if p.one, err = s.Start(r.fw1, o); err != nil {
		return err
	}
	if p.two, err = s.Start(r.fw2, o); err != nil {
		return err
	}
	return fn(p)
}

// warm makes connections that are not measured, and waits until both nodes
// know them.
func (p *pair) warm() error {
	const n = 500
	if _, err := p.generator.Connect(n, n); err != nil {
		return err
	}
	return p.awaitExternal(n)
}

// awaitExternal waits until the second node knows at least n flows of the first.
func (p *pair) awaitExternal(n int) error {
	return testbed.Await(patience, func() error {
		c, err := p.two.External()
		if err == nil && c.Flows < n {
			err = fmt.Errorf("%d of %d flows reached the peer", c.Flows, n)
		}
		return err
	})
}

// patience bounds every wait for something that must happen.
const patience = 2 * time.Minute

// cpuAt measures both nodes under real TCP connections at a rate.
func cpuAt(rate int, duration time.Duration) measurement {
	events := fmt.Sprintf("%d events/s", rate*EventsPerConnection)
	return func(s system, add func(figure, at string, v float64)) error {
		return onPair(s, options{}, func(p *pair) error {
			if err := p.warm(); err != nil {
				return err
			}
			before, err := p.usage()
			if err != nil {
				return err
			}
			known := p.generator.next
			n := int(float64(rate) * duration.Seconds())
			elapsed, err := p.generator.Connect(n, rate)
			if err != nil {
				return err
			}
			if err := p.awaitExternal(known + n); err != nil {
				return err
			}
			after, err := p.usage()
			if err != nil {
				return err
			}
			each := float64(n * EventsPerConnection)
			add("sender CPU", events, micro(after.sender-before.sender)/each)
			add("receiver CPU", events, micro(after.receiver-before.receiver)/each)
			add("datagrams an event", events, float64(after.datagrams-before.datagrams)/each)
			add("rate made", events, each/elapsed.Seconds())
			return nil
		})
	}
}

func micro(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

// usage is what a pair has used up to now.
type usage struct {
	sender, receiver time.Duration
	datagrams        uint64
}

func (p *pair) usage() (u usage, err error) {
	if u.sender, err = testbed.CPUTime(p.one.PIDs()...); err != nil {
		return u, err
	}
	if u.receiver, err = testbed.CPUTime(p.two.PIDs()...); err != nil {
		return u, err
	}
	u.datagrams, err = sentPackets(p.fw1.Namespace, testbed.SyncLink)
	return u, err
}

// sentPackets is how many packets an interface has sent.
func sentPackets(n *testbed.Namespace, link string) (uint64, error) {
	out, err := n.Run("ip", "-json", "-statistics", "link", "show", link)
	if err != nil {
		return 0, err
	}
	var links []struct {
		Stats64 struct {
			TX struct{ Packets uint64 } `json:"tx"`
		} `json:"stats64"`
	}
	if err := json.Unmarshal([]byte(out), &links); err != nil || len(links) != 1 {
		return 0, fmt.Errorf("bench: ip link show %s: %q: %w", link, out, err)
	}
	return links[0].Stats64.TX.Packets, nil
}

// idle measures both nodes without traffic.
func idle(duration time.Duration) measurement {
	return func(s system, add func(figure, at string, v float64)) error {
		return onPair(s, options{}, func(p *pair) error {
			if err := p.warm(); err != nil {
				return err
			}
			time.Sleep(2 * time.Second) // what the warm-up left to do
			before, err := p.usage()
			if err != nil {
				return err
			}
			begin := time.Now()
			time.Sleep(duration)
			after, err := p.usage()
			if err != nil {
				return err
			}
			add("idle CPU of a node", "", 100*(after.sender-before.sender).Seconds()/time.Since(begin).Seconds())
			_, pss, err := testbed.Memory(p.one.PIDs()...)
			add("memory of a node", "idle", float64(pss)/1e6)
			return err
		})
	}
}
