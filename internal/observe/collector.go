package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/core/control"
)

var roles = []string{"primary", "backup", "fault"}

// A collector makes metrics of the state of the node. It describes none of them
// in advance (an unchecked collector), since the stages' own are not known.
type collector struct{ node *node }

func (collector) Describe(chan<- *prometheus.Desc) {}

func (c collector) Collect(out chan<- prometheus.Metric) {
	asked := time.Now()
	status, err := c.node.status()
	if err != nil {
		out <- prometheus.NewInvalidMetric(metricHealthy.desc, err)
		return
	}
	collectNode(status, out)
	own := newStatistics(out)
	for _, p := range status.Pipelines {
		for i := range p.Stages {
			s := &p.Stages[i]
			collectStage(p.Name, s, !s.Answered.Before(asked.Add(-freshness)), out)
			own.collect(s)
		}
	}
}

// set sends one number, and drops one that Prometheus refuses: names from
// elsewhere may not be what it takes.
func (m *Metric) set(out chan<- prometheus.Metric, v float64, labels ...string) {
	typ := prometheus.GaugeValue
	if m.Type == counter {
		typ = prometheus.CounterValue
	}
	if one, err := prometheus.NewConstMetric(m.desc, typ, v, labels...); err == nil {
		out <- one
	}
}

func (m *Metric) setHistogram(out chan<- prometheus.Metric, h *control.Histogram, labels ...string) {
	if h == nil || len(h.Counts) != len(h.Bounds)+1 {
		return
	}
	buckets, total := map[float64]uint64{}, uint64(0)
	for i, bound := range h.Bounds {
		total += h.Counts[i]
		buckets[bound] = total
	}
	total += h.Counts[len(h.Bounds)]
	if one, err := prometheus.NewConstHistogram(m.desc, total, h.Sum, buckets, labels...); err == nil {
		out <- one
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds is the time as Prometheus has it.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func collectNode(s *control.Status, out chan<- prometheus.Metric) {
	metricNode.set(out, 1, s.Node, s.Version)
	metricStart.set(out, seconds(s.Started))
	metricHealthy.set(out, truth(len(s.Unhealthy) == 0))
	metricReady.set(out, truth(len(s.Unready) == 0))
	for _, role := range roles {
		metricRole.set(out, truth(s.Role == role), role)
	}
	if s.Purge != nil {
		metricPurge.set(out, seconds(*s.Purge))
	}
	collectReloads(s, out)
	for _, one := range s.Signals {
		metricSignals.set(out, float64(one.Times), one.Stage, one.Name)
	}
}

// collectReloads tells how the reloads ended; a node that had none is as if its
// start had been one.
func collectReloads(s *control.Status, out chan<- prometheus.Metric) {
	last := control.ReloadStatus{Result: control.ReloadDone, Loaded: s.Started}
	if s.Reload != nil {
		last = *s.Reload
	}
	metricReloads.set(out, float64(last.Good), "done")
	metricReloads.set(out, float64(last.Bad), "failed")
	metricReloaded.set(out, truth(last.Result == control.ReloadDone))
	metricReloadTime.set(out, seconds(last.Loaded))
}

func collectStage(pipeline string, s *control.StageStatus, answered bool, out chan<- prometheus.Metric) {
	a := s.Address
	metricStage.set(out, 1, a, pipeline, s.Kind, s.Type)
	metricUp.set(out, truth(s.PID != 0), a)
	metricAnswered.set(out, truth(answered && s.PID != 0), a)
	metricState.set(out, seconds(s.Since), a, s.State)
	metricRestarts.set(out, float64(s.Restarts), a)
	if s.Kind != "source" {
		metricEventsIn.set(out, float64(s.EventsIn), a)
		metricBatchesIn.set(out, float64(s.BatchesIn), a)
		metricBytesIn.set(out, float64(s.BytesIn), a)
		metricQueued.set(out, float64(s.QueueBytes), a)
		metricUsed.set(out, float64(s.QueueUsed), a)
		metricLimit.set(out, float64(s.QueueLimit), a)
		metricLosses.set(out, float64(s.Malformed), a, "malformed_batch", "")
	}
	if s.Kind != "sink" {
		metricEventsOut.set(out, float64(s.EventsOut), a)
		metricBatchesOut.set(out, float64(s.BatchesOut), a)
		metricBytesOut.set(out, float64(s.BytesOut), a)
		metricBehind.set(out, float64(s.Behind), a)
		metricLosses.set(out, float64(s.EdgeDropped), a, "edge_full", "")
	}
	metricSizes.setHistogram(out, s.BatchSizes, a)
	metricAges.setHistogram(out, s.BatchAges, a)
	if s.PID != 0 {
		metricCPU.set(out, s.CPUSeconds, a)
		metricMemory.set(out, float64(s.MemoryBytes), a)
	}
	for _, p := range s.Peers {
		collectPeer(a, p, out)
	}
}

func collectPeer(stage string, p control.PeerStatus, out chan<- prometheus.Metric) {
	metricPeer.set(out, 1, stage, p.Address, p.Name)
	metricPeerUp.set(out, truth(p.Up), stage, p.Address)
	if !p.Heard.IsZero() {
		metricPeerHeard.set(out, seconds(p.Heard), stage, p.Address)
	}
	metricPeerFlows.set(out, float64(p.Flows), stage, p.Address)
	metricPeerReplayed.set(out, float64(p.Replayed), stage, p.Address)
}
