package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
)

// cpuAt measures both nodes under real TCP connections at a rate.
func cpuAt(rate int, duration time.Duration) measurement {
	events := perSecond(rate)
	return func(s system, add func(figure, at string, v float64)) error {
		return onPair(s, options{}, func(p *pair) error {
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
			add(figSender, events, micro(after.sender-before.sender)/each)
			add(figReceiver, events, micro(after.receiver-before.receiver)/each)
			add(figDatagrams, events, float64(after.datagrams-before.datagrams)/each)
			add(figMade, events, each/elapsed.Seconds())
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
			add(figIdleCPU, "", 100*(after.sender-before.sender).Seconds()/time.Since(begin).Seconds())
			_, pss, err := testbed.Memory(p.one.PIDs()...)
			add(figIdleMemory, "", float64(pss)/1e6)
			return err
		})
	}
}
