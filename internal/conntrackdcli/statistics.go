package conntrackdcli

import (
	"fmt"
	"time"

	"github.com/sluice-project/sluice/core/control"
)

// appendStatistics appends what -s prints; now is the time.
func (n node) appendStatistics(p []byte, which string, now time.Time) []byte {
	switch which {
	case "", "ct":
		return n.appendGeneral(p, false)
	case "expect":
		if !n.setup.Sync {
			return p
		}
		return n.appendGeneral(p, true)
	case "cache":
		return n.appendCaches(p)
	case "runtime":
		return n.appendRuntime(p, now)
	}
	if !n.setup.Sync {
		return p // conntrackd has no others then
	}
	switch which {
	case "network":
		return n.appendNetwork(p)
	case "link":
		return n.appendLinks(p)
	case "queue":
		return appendQueues(p)
	}
	return p // rsqueue and process: there are none
}

func (n node) appendGeneral(p []byte, expectations bool) []byte {
	p = n.appendSummaries(p, expectations)
	p = append(p, "traffic processed:\n"...)
	p = fmt.Appendf(p, "%20d Bytes      %20d Pckts\n\n", 0, 0) // nobody counts it
	if !n.setup.Sync {
		return p
	}
	p = n.appendActive(p)
	p = n.appendTraffic(p)
	_, sources := n.links()
	p = append(p, "message tracking:\n"...)
	return fmt.Appendf(p, "%20d Malformed msgs %20d Lost msgs\n\n", sum(sources, "malformed"), sum(sources, "messages_lost"))
}

// appendTraffic appends what went over the link.
func (n node) appendTraffic(p []byte) []byte {
	sinks, sources := n.links()
	for _, row := range []struct {
		unit string
		a, b uint64
	}{
		{"Bytes", sum(sinks, "bytes_sent"), sum(sources, "bytes_received")},
		{"Pckts", sum(sinks, "datagrams_sent"), sum(sources, "datagrams_received")},
	} {
		p = fmt.Appendf(p, "%20d %s sent %20d %s recv\n", row.a, row.unit, row.b, row.unit)
	}
	return fmt.Appendf(p, "%20d Error send %20d Error recv\n\n", sum(sinks, "datagrams_lost"), sum(sources, "receive_errors", "datagrams_truncated"))
}

// counts is what a cache has done.
type counts struct {
	active, created, updated, destroyed uint64
	refused                             uint64 // no space left
	unowned                             uint64 // ends of what is not there
}

func countsOf(stages []control.StageStatus, expectations bool) counts {
	if expectations {
		return counts{
			active: sum(stages, "expectations"), created: sum(stages, "expectations_inserted"),
			updated: sum(stages, "expectations_updated"), destroyed: sum(stages, "expectations_destroyed", "expectations_swept"),
			refused: sum(stages, "expectations_refused"),
		}
	}
	return counts{
		active: sum(stages, "flows"), created: sum(stages, "inserted"), updated: sum(stages, "updated"),
		destroyed: sum(stages, "destroyed", "swept"), refused: sum(stages, "refused"), unowned: sum(stages, "destroys_ignored"),
	}
}

// appendSummaries appends a block a cache, or of what takes its place.
func (n node) appendSummaries(p []byte, expectations bool) []byte {
	switch {
	case !n.setup.Sync:
		return appendSummary(p, "cache stats", countsOf(n.stages(statsPipeline, "cache"), expectations))
	case n.setup.InternalCache:
		p = appendSummary(p, "cache internal", countsOf(n.stages(localPipeline, "cache"), expectations))
	default:
		p = n.appendBypass(p, expectations)
	}
	if n.setup.ExternalCache {
		return appendSummary(p, "cache external", countsOf(n.stages(peersPipeline, "cache"), expectations))
	}
	return n.appendInject(p, expectations)
}

func appendSummary(p []byte, name string, c counts) []byte {
	p = fmt.Appendf(p, "%s:\ncurrent active connections:\t%12d\n", name, c.active)
	return appendChanges(p, c)
}

func appendChanges(p []byte, c counts) []byte {
	p = fmt.Appendf(p, "connections created:\t\t%12d\tfailed:\t%12d\n", c.created, c.refused)
	p = fmt.Appendf(p, "connections updated:\t\t%12d\tfailed:\t%12d\n", c.updated, 0)
	return fmt.Appendf(p, "connections destroyed:\t\t%12d\tfailed:\t%12d\n\n", c.destroyed, c.unowned)
}

// appendBypass tells of events that no cache has kept. The kernel's are all
// there is to tell of, those that the filter ignores included.
func (n node) appendBypass(p []byte, expectations bool) []byte {
	var c counts
	if sources := n.stages(localPipeline, "source"); !expectations {
		c = counts{created: sum(sources, "events_new"), updated: sum(sources, "events_update"), destroyed: sum(sources, "events_destroy")}
	}
	p = fmt.Appendf(p, "internal bypass:\nconnections new:\t\t%12d\n", c.created)
	p = fmt.Appendf(p, "connections updated:\t\t%12d\n", c.updated)
	return fmt.Appendf(p, "connections destroyed:\t\t%12d\n\n", c.destroyed)
}

// appendInject tells of what peers sent and went into the kernel at once.
func (n node) appendInject(p []byte, expectations bool) []byte {
	c := countsOf(n.stages(peersPipeline, "cache"), expectations)
	return appendChanges(append(p, "external inject:\n"...), c)
}

func (n node) appendCaches(p []byte) []byte {
	switch {
	case !n.setup.Sync:
		return appendCache(p, "stats", countsOf(n.stages(statsPipeline, "cache"), false))
	case n.setup.InternalCache:
		p = appendCache(p, "internal", countsOf(n.stages(localPipeline, "cache"), false))
	default:
		p = n.appendBypass(p, false)
	}
	if n.setup.ExternalCache {
		return appendCache(p, "external", countsOf(n.stages(peersPipeline, "cache"), false))
	}
	return n.appendInject(p, false)
}

func appendCache(p []byte, name string, c counts) []byte {
	p = fmt.Appendf(p, "cache:%s\tactive objects:\t\t%12d\n", name, c.active)
	p = fmt.Appendf(p, "\tactive/total entries:\t\t%12d/%12d\n", c.active, c.active)
	p = fmt.Appendf(p, "\tcreation OK/failed:\t\t%12d/%12d\n", c.created, c.refused)
	p = fmt.Appendf(p, "\t\tno memory available:\t%12d\n", 0)
	p = fmt.Appendf(p, "\t\tno space left in cache:\t%12d\n", c.refused)
	p = fmt.Appendf(p, "\tupdate OK/failed:\t\t%12d/%12d\n\t\tentry not found:\t%12d\n", c.updated, 0, 0)
	return fmt.Appendf(p, "\tdeletion created/failed:\t%12d/%12d\n\t\tentry not found:\t%12d\n\n", c.destroyed, c.unowned, c.unowned)
}

func (n node) appendRuntime(p []byte, now time.Time) []byte {
	sources := n.stages(n.own(), "source")
	p = fmt.Appendf(p, "daemon uptime: %s\n\nnetlink stats:\n", uptime(now.Sub(n.Started)))
	for _, row := range []struct {
		name  string
		value uint64
	}{
		{"\tevents received:\t", sum(sources, "events_new", "events_update", "events_destroy")},
		{"\tevents filtered:\t", n.filtered()},
		{"\tevents unknown type:\t\t", 0},
		{"\tcatch event failed:\t\t", sum(sources, "events_malformed")},
		{"\tdump unknown type:\t\t", 0},
		{"\tnetlink overrun:\t\t", sum(sources, "overruns")},
		{"\tflush kernel table:\t\t", 0},
		{"\tresync with kernel table:\t", sum(sources, "replays")},
	} {
		width := 12
		if row.name == "\tevents received:\t" || row.name == "\tevents filtered:\t" {
			width = 20
		}
		p = fmt.Appendf(p, "%s%*d\n", row.name, width, row.value)
	}
	p = fmt.Appendf(p, "\tcurrent buffer size (in bytes):\t%12d\n\n", sum(sources, "receive_buffer_bytes"))
	return n.appendProcesses(p)
}

// filtered counts what the filters at the top of this node's pipeline did not
// let through.
func (n node) filtered() (total uint64) {
	for _, s := range n.stages(n.own(), "filter") {
		total += s.EventsIn - min(s.EventsIn, s.EventsOut)
	}
	return total
}

// appendProcesses counts the stages that failed for child processes.
func (n node) appendProcesses(p []byte) []byte {
	failed := uint64(0)
	for _, pipeline := range n.Pipelines {
		for _, s := range pipeline.Stages {
			failed += s.Restarts
		}
	}
	p = fmt.Appendf(p, "runtime stats:\n\tchild process failed:\t\t%12d\n", failed)
	for _, name := range []string{"\t\tchild process segfault:\t", "\t\tchild process termsig:\t", "\tselect failed:\t\t\t",
		"\twait failed:\t\t\t", "\tlocal read failed:\t\t", "\tlocal unknown request:\t\t"} {
		p = fmt.Appendf(p, "%s%12d\n", name, 0)
	}
	return append(p, '\n')
}

// uptime writes a time in days, hours and minutes.
func uptime(d time.Duration) (text string) {
	minutes := int64(max(d, 0) / time.Minute)
	if days := minutes / (24 * 60); days > 0 {
		text = fmt.Sprintf("%d days ", days)
		if days == 1 {
			text = "1 day "
		}
	}
	if hours := minutes / 60 % 24; hours > 0 {
		text += fmt.Sprintf("%d h ", hours)
	}
	return fmt.Sprintf("%s%d min", text, minutes%60)
}

func (n node) appendNetwork(p []byte) []byte {
	_, sources := n.links()
	p = append(p, "network statistics:\n\trecv:\n"...)
	for _, row := range []struct{ name, statistic string }{
		{"\t\tMalformed messages:\t", "malformed"},
		{"\t\tWrong protocol version:\t", "malformed_version"},
		{"\t\tMalformed header:\t", "malformed_header"},
		{"\t\tMalformed payload:\t", "malformed_payload"},
		{"\t\tBad message type:\t", ""},
		{"\t\tTruncated message:\t", "malformed_truncated"},
		{"\t\tBad message size:\t", "malformed_size"},
	} {
		p = fmt.Appendf(p, "%s%20d\n", row.name, sum(sources, row.statistic))
	}
	p = fmt.Appendf(p, "\tsend:\n\t\tMalformed messages:\t%20d\n\nsequence tracking statistics:\n\trecv:\n", 0)
	p = fmt.Appendf(p, "\t\tPackets lost:\t\t%20d\n", sum(sources, "messages_lost"))
	p = fmt.Appendf(p, "\t\tPackets before:\t\t%20d\n\n", sum(sources, "messages_before"))
	p = n.appendActive(p)
	return n.appendTraffic(p)
}

// appendActive appends the heading of the traffic over the link in use.
func (n node) appendActive(p []byte) []byte {
	if len(n.setup.Links) == 0 {
		return p
	}
	link := n.setup.Links[n.active()]
	p = fmt.Appendf(p, "%s traffic (active device=%s)", link.Kind, link.Interface)
	if link.Kind == "TCP" {
		_, sources := n.links()
		connected := map[bool]string{true: "connected", false: "disconnected"}[sum(sources, "peer_up") > 0]
		p = fmt.Appendf(p, " server=%s client=%s", connected, connected)
	}
	return append(p, ":\n"...)
}

// appendLinks appends the links, of which the one in use has the numbers.
func (n node) appendLinks(p []byte) []byte {
	active := n.active()
	for i, link := range n.setup.Links {
		role, traffic := "BACKUP", node{Status: &control.Status{}}
		if i == active {
			role, traffic = "ACTIVE", n
		}
		p = fmt.Appendf(p, "%s traffic device=%s status=%s role=%s:\n", link.Kind, link.Interface, n.states[i], role)
		p = traffic.appendTraffic(p)
	}
	return p
}

// appendQueues appends conntrackd's queues, which have no counterpart.
func appendQueues(p []byte) []byte {
	p = fmt.Appendf(p, "allocated queue nodes:\t\t%12d\n\n", 0)
	for _, queue := range []struct {
		name string
		most int
	}{{"txqueue", 1<<31 - 1}, {"errorq", 128}} {
		p = fmt.Appendf(p, "queue %s:\ncurrent elements:\t\t%12d\nmaximum elements:\t\t%12d\nnot enough space errors:\t%12d\n\n",
			queue.name, 0, queue.most, 0)
	}
	return p
}
