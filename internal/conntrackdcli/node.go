package conntrackdcli

import (
	"net"
	"slices"

	"github.com/sluice-project/sluice/core/control"
)

// The pipelines that internal/conntrackdconf writes.
const (
	localPipeline = "local"
	peersPipeline = "peers"
	statsPipeline = "stats"
)

// A Setup is what of a conntrackd.conf decides how conntrackd answers.
type Setup struct {
	Socket        string // of UNIX Path
	Sync, Stats   bool   // there is such a section
	InternalCache bool   // it is not disabled
	ExternalCache bool
	Links         []Link // in the order of the file
	Active        int    // the index of the link to begin with
}

// A Link is a section that joins this node to the others.
type Link struct {
	Kind      string // "multicast", "UDP" or "TCP", as in headings
	Interface string
}

// A node is the state of a runner, as statistics are made from it.
type node struct {
	*control.Status
	setup  Setup
	states []string // of the links' interfaces; only for -s link
}

// stages returns the stages of a pipeline that are of a kind.
func (n node) stages(pipeline, kind string) (found []control.StageStatus) {
	for _, p := range n.Pipelines {
		for _, s := range p.Stages {
			if p.Name == pipeline && s.Kind == kind {
				found = append(found, s)
			}
		}
	}
	return found
}

// own is the pipeline of this node's flows.
func (n node) own() string {
	if n.setup.Sync {
		return localPipeline
	}
	return statsPipeline
}

// sum adds up statistics of stages by their names.
func sum(stages []control.StageStatus, names ...string) (total uint64) {
	for _, stage := range stages {
		for _, s := range stage.Statistics {
			if slices.Contains(names, s.Name) {
				total += s.Value
			}
		}
	}
	return total
}

// active returns the link that is in use: the one that the sink says, or else
// the one that the configuration begins with.
func (n node) active() (index int) {
	sinks, _ := n.links()
	for i, link := range n.setup.Links {
		for _, sink := range sinks {
			if slices.ContainsFunc(sink.Statistics, func(s control.Statistic) bool {
				return s.Name == "link_active" && s.Peer == link.Interface && s.Value > 0
			}) {
				return i
			}
		}
	}
	return n.setup.Active
}

// linkState is the state of a link's interface, as conntrackd tells it, in the
// network namespace of the thread.
func linkState(name string) string {
	i, err := net.InterfaceByName(name)
	switch {
	case err != nil || i.Flags&net.FlagUp == 0:
		return "DOWN"
	case i.Flags&net.FlagRunning == 0:
		return "NO-CARRIER"
	}
	return "RUNNING"
}

// links returns what sends to peers and what hears them.
func (n node) links() (sinks, sources []control.StageStatus) {
	return n.stages(localPipeline, "sink"), n.stages(peersPipeline, "source")
}
