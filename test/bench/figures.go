package main

import (
	"fmt"
	"math"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
)

// Names of the systems in results.
const (
	nameSluice     = "sluice"
	nameConntrackd = "conntrackd"
	nameOrdinary   = "conntrackd, ordinary scheduler"

	nameSluiceOrdinary = "sluice, ordinary scheduler"

	nameKernel = "kernel" // alone: what it allows
)

// Names of the figures in results.
const (
	figSender       = "sender CPU"
	figReceiver     = "receiver CPU"
	figDatagrams    = "datagrams an event"
	figMade         = "rate made"
	figCommit       = "commit"
	figWriteThrough = "write-through"
	figBulk         = "bulk update"
	figBulkLost     = "bulk update, lost"
	figMemory       = "memory a flow"
	figP50          = "delay p50"
	figP99          = "delay p99"
	figRate         = "event rate without loss"
	figRateLost     = "lost as fast as events can be made"
	figIdleCPU      = "idle CPU of a node"
	figIdleMemory   = "idle memory of a node"
	figCPUBySize    = "sender CPU, by size"
	figMemoryBySize = "memory a flow, by size"
	figCPUGrowth    = "growth of sender CPU"
	figMemoryGrowth = "growth of memory a flow"
)

// units of the figures; those that are missing have none.
var units = map[string]string{
	figSender: "µs an event", figReceiver: "µs an event", figMade: "events/s", figCommit: "flows/s", figWriteThrough: "flows/s",
	figBulk: "s", figBulkLost: "flows", figMemory: "bytes", figP50: "ms", figP99: "ms", figRate: "events/s", figRateLost: "%",
	figIdleCPU: "% of a core", figIdleMemory: "MB", figCPUBySize: "µs an event", figMemoryBySize: "bytes",
	figCPUGrowth: "×", figMemoryGrowth: "×",
}

// Conditions under which delays are measured.
const (
	atQuiet     = "quiet"
	atLoad      = "30000 events/s"
	notWaiting  = ", coalesce 0s"
	loadRate    = 5000 // connections
	quietRate   = 100
	growthRate  = 5000
	withSNAT    = ", SNAT"
	bigTable    = 500000
	bigSNAT     = 200000
	smallestOne = 10000
	largestOne  = 2000000
)

// flows and perSecond say at what a figure is measured.
func flows(n int) string         { return fmt.Sprintf("%d flows", n) }
func perSecond(conns int) string { return fmt.Sprintf("%d events/s", conns*EventsPerConnection) }

// A measurement measures one system once and hands over what it found.
type measurement func(s system, add func(figure, at string, v float64)) error

// An item is one thing that is measured, for each system in turn.
type item struct {
	name     string
	measure  measurement
	only     string // the one system that it is measured for, or ""
	limit    bool   // what the kernel allows: of no system
	ordinary bool   // for both under the ordinary scheduler too
	rounds   int    // 0: as asked for
}

// items are all the measurements, in the order of the report.
func items(scale int) []item {
	const second = time.Second
	snat := testbed.Synthetic{SNAT: natAddress}
	big, translated := bigTable/scale, bigSNAT/scale
	all := []item{
		{name: "cpu-1000", measure: cpuAt(1000, 5*second), ordinary: true},
		{name: "cpu-5000", measure: cpuAt(5000, 5*second), ordinary: true},
		{name: "cpu-9500", measure: cpuAt(9500, 5*second), ordinary: true},
		{name: "delay-quiet", measure: delay(quietRate, "", atQuiet)},
		{name: "delay-quiet", measure: delay(quietRate, "0s", atQuiet+notWaiting), only: nameSluice},
		{name: "delay-load", measure: delay(loadRate, "", atLoad), ordinary: true},
		{name: "delay-load", measure: delay(loadRate, "0s", atLoad+notWaiting), only: nameSluice},
		{name: "commit", measure: kernelCommit(big, testbed.Synthetic{}, flows(big)), limit: true},
		{name: "commit", measure: commit(big, testbed.Synthetic{}, flows(big))},
		{name: "commit-snat", measure: kernelCommit(translated, snat, flows(translated)+withSNAT), limit: true},
		{name: "commit-snat", measure: commit(translated, snat, flows(translated)+withSNAT)},
		{name: "write-through", measure: writeThrough},
		{name: "bulk", measure: bulk(big)},
		{name: "memory", measure: memory(big)},
		{name: "ramp", measure: kernelRate, limit: true},
		{name: "ramp", measure: ramp},
		{name: "idle", measure: idle(10 * second)},
	}
	for _, n := range []int{smallestOne, 100000, bigTable, largestOne} {
		all = append(all, item{name: "growth", measure: growth(n/scale, growthRate, 3*second), rounds: 1})
	}
	return all
}

// systems are those that the item is measured for.
func (it *item) systems(binary string) (all []system) {
	if it.limit {
		return []system{kernel{}}
	}
	if it.only == "" {
		all = append(all, conntrackd{})
	}
	all = append(all, sluice{binary: binary})
	if it.ordinary {
		all = append(all, conntrackd{ordinary: true}, sluice{binary: binary, ordinary: true})
	}
	return all
}

// A target is what a figure of Sluice has to reach.
type target struct {
	figure, at string
	ratio      bool    // to conntrackd's, not the figure itself
	against    string  // of conntrackd's figure, if not at
	higher     bool    // more is better
	must, aim  float64 // none: there is no such goal
	ofLimit    float64 // the aim is this share of what the kernel allows
	unlost     string  // the aim is that this figure is 0: nothing is lost, however fast events come
}

var none = math.NaN()

// targets are those of a result whose tables were divided by scale.
func targets(scale int) []target {
	big, translated := flows(bigTable/scale), flows(bigSNAT/scale)+withSNAT
	atMost := func(figure, at string, must, aim float64) target {
		return target{figure: figure, at: at, must: must, aim: aim}
	}
	ratio := func(figure, at string, must, aim float64) target {
		return target{figure: figure, at: at, ratio: true, must: must, aim: aim}
	}
	times := func(figure, at string, must, aim float64) target {
		return target{figure: figure, at: at, ratio: true, higher: true, must: must, aim: aim}
	}
	ofKernel := func(t target, share float64) target { t.ofLimit = share; return t }
	against := func(t target, at string) target { t.against = at; return t }
	return []target{
		ratio(figSender, perSecond(1000), 0.6, 0.4),
		ratio(figSender, perSecond(5000), 0.4, 0.2),
		ratio(figSender, perSecond(9500), 0.3, 0.2),
		ratio(figReceiver, perSecond(5000), 0.4, 0.2),
		ratio(figReceiver, perSecond(9500), 0.3, 0.2),
		atMost(figDatagrams, perSecond(5000), 0.1, 0.05),
		ofKernel(times(figCommit, big, 2, none), 0.8),
		ofKernel(times(figCommit, translated, 1.5, none), 0.8),
		times(figWriteThrough, "", 1.5, 2.5),
		ratio(figBulk, big, 0.5, 0.25),
		atMost(figBulkLost, big, 0, none),
		ratio(figMemory, big, 0.5, 0.3),
		ratio(figP50, atQuiet, none, 1),
		ratio(figP50, atLoad, none, 1),
		atMost(figP99, atQuiet, 5, none),
		atMost(figP99, atLoad, 5, none),
		against(ratio(figP50, atQuiet+notWaiting, 2, 1), atQuiet),
		against(ratio(figP50, atLoad+notWaiting, 2, 1), atLoad),
		{figure: figRate, ratio: true, higher: true, must: 2, aim: none, unlost: figRateLost},
		atMost(figIdleCPU, "", 0.5, 0.2),
		atMost(figIdleMemory, "", 100, 60),
		atMost(figCPUGrowth, growthAt(smallestOne/scale, largestOne/scale), 1.5, 1.1),
		atMost(figMemoryGrowth, growthAt(smallestOne/scale, largestOne/scale), 1.5, 1.1),
	}
}

func growthAt(from, to int) string { return fmt.Sprintf("%d to %d flows", from, to) }
