package main

import (
	"fmt"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
)

// A measurement measures one system once and hands over what it found.
type measurement func(s system, add func(figure, at string, v float64)) error

// An item is one thing that is measured, for each system in turn.
type item struct {
	name    string
	measure measurement
	only    string // the one system that it is measured for, or ""
	limit   bool   // what the kernel allows: of no system
	rounds  int    // 0: as asked for
}

// items are all the measurements, in the order of the report.
func items(scale int) []item {
	const second = time.Second
	snat := testbed.Synthetic{SNAT: natAddress}
	flows, translated := 500000/scale, 200000/scale
	all := []item{
		{name: "cpu-1000", measure: cpuAt(1000, 5*second)},
		{name: "cpu-5000", measure: cpuAt(5000, 5*second)},
		{name: "cpu-9500", measure: cpuAt(9500, 5*second)},
		{name: "commit", measure: commit(flows, testbed.Synthetic{}, fmt.Sprintf("%d flows", flows))},
		{name: "commit", measure: kernelCommit(flows, testbed.Synthetic{}, fmt.Sprintf("%d flows", flows)), limit: true},
		{name: "commit-snat", measure: commit(translated, snat, fmt.Sprintf("%d flows, SNAT", translated))},
		{name: "commit-snat", measure: kernelCommit(translated, snat, fmt.Sprintf("%d flows, SNAT", translated)), limit: true},
		{name: "write-through", measure: writeThrough},
		{name: "bulk", measure: bulk(flows)},
		{name: "memory", measure: memory(flows)},
		{name: "delay-quiet", measure: delay(100, "", "quiet")},
		{name: "delay-quiet", measure: delay(100, "0s", "quiet, coalesce 0s"), only: "sluice"},
		{name: "delay-load", measure: delay(5000, "", "30000 events/s")},
		{name: "delay-load", measure: delay(5000, "0s", "30000 events/s, coalesce 0s"), only: "sluice"},
		{name: "ramp", measure: ramp},
		{name: "idle", measure: idle(10 * second)},
	}
	for _, n := range []int{10000, 100000, 500000, 2000000} {
		all = append(all, item{name: "growth", measure: growth(n/scale, 5000, 3*second), rounds: 1})
	}
	return all
}

// A target is what a figure has to reach, as the ratio of Sluice's to
// conntrackd's where ratio is set.
type target struct {
	figure, at string
	unit       string
	ratio      bool
	higher     bool // more is better
	must, aim  float64
}

var targets = []target{
	{"sender CPU", "6000 events/s", "µs an event", true, false, 0.6, 0.4},
	{"sender CPU", "30000 events/s", "µs an event", true, false, 0.4, 0.2},
	{"sender CPU", "57000 events/s", "µs an event", true, false, 0.3, 0.2},
	{"receiver CPU", "30000 events/s", "µs an event", true, false, 0.4, 0.2},
	{"receiver CPU", "57000 events/s", "µs an event", true, false, 0.3, 0.2},
	{"datagrams an event", "30000 events/s", "", false, false, 0.1, 0.05},
	{"commit", "500000 flows", "flows/s", true, true, 2, 2.7},
	{"commit", "200000 flows, SNAT", "flows/s", true, true, 1.5, 0},
	{"write-through", "", "flows/s", true, true, 1.5, 2.5},
	{"bulk", "500000 flows", "s", true, false, 0.5, 0.25},
	{"bulk lost", "500000 flows", "flows", false, false, 0, 0},
	{"memory a flow", "500000 flows", "bytes", true, false, 0.5, 0.3},
	{"delay p99", "quiet", "ms", false, false, 5, 0},
	{"delay p99", "30000 events/s", "ms", false, false, 5, 0},
	{"event rate without loss", "", "events/s", true, true, 2, 0},
	{"idle CPU of a node", "", "% of a core", false, false, 0.5, 0.2},
	{"memory of a node", "idle", "MB", false, false, 100, 60},
}
