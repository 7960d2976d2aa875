package observe

import (
	"github.com/prometheus/client_golang/prometheus"
)

// The types of metric, by Prometheus' names.
const (
	gauge     = "gauge"
	counter   = "counter"
	histogram = "histogram"
)

// A Metric is one family of metrics, as the documentation names it.
type Metric struct {
	Name   string
	Help   string
	Type   string   // gauge, counter or histogram
	Labels []string // besides those that Prometheus adds

	desc *prometheus.Desc
}

// Metrics are all that do not depend on plugins, in the order of the page.
var Metrics []*Metric

func define(name, typ, help string, labels ...string) *Metric {
	m := &Metric{Name: name, Help: help, Type: typ, Labels: labels, desc: prometheus.NewDesc(name, help, labels, nil)}
	Metrics = append(Metrics, m)
	return m
}

// Of the node.
var (
	metricNode    = define("sluice_node_info", gauge, "Always 1; the labels name the node and its version.", "node", "version")
	metricStart   = define("sluice_start_time_seconds", gauge, "When the runner was started, in seconds since 1970.")
	metricHealthy = define("sluice_healthy", gauge, "1 unless something is wrong that the runner does not repair by itself: what /healthz says.")
	metricReady   = define("sluice_ready", gauge, "1 while the node is in sync: what /readyz says.")
	metricRole    = define("sluice_role", gauge, "1 for the role that the node was given last; none was given: 0 for all.", "role")
	metricPurge   = define("sluice_purge_timestamp_seconds", gauge, "When the purge that is scheduled is due, in seconds since 1970.")
	metricSignals = define("sluice_signals_total", counter, "Signals that stages raised.", "stage", "signal")
)

// Of each stage. Counters that say so go on when its process is started again.
var (
	metricStage      = define("sluice_stage_info", gauge, "Always 1; the labels say what the stage is.", "stage", "pipeline", "kind", "type")
	metricUp         = define("sluice_stage_up", gauge, "1 while a process of the stage runs.", "stage")
	metricAnswered   = define("sluice_stage_answered", gauge, "1 if the stage answered this scrape in time; if not, its numbers are old.", "stage")
	metricState      = define("sluice_stage_state_timestamp_seconds", gauge, "Since when the stage is in its state, in seconds since 1970.", "stage", "state")
	metricRestarts   = define("sluice_stage_restarts_total", counter, "Times that the stage was started again.", "stage")
	metricEventsIn   = define("sluice_stage_received_events_total", counter, "Events read, marks included, by all processes of the stage.", "stage")
	metricEventsOut  = define("sluice_stage_sent_events_total", counter, "Events sent on, marks included, by all processes of the stage.", "stage")
	metricBatchesIn  = define("sluice_stage_received_batches_total", counter, "Batches read, by all processes of the stage.", "stage")
	metricBatchesOut = define("sluice_stage_sent_batches_total", counter, "Batches sent on, by all processes of the stage.", "stage")
	metricBytesIn    = define("sluice_stage_received_bytes_total", counter, "Bytes of batches read, by all processes of the stage.", "stage")
	metricBytesOut   = define("sluice_stage_sent_bytes_total", counter, "Bytes of batches sent on, by all processes of the stage.", "stage")
	metricLosses     = define("sluice_stage_losses_total", counter, "What the stage lost, by cause: its statistics of the type loss, malformed_batch, and edge_full where a pipeline fans out. What one is depends on the cause.", "stage", "cause", "peer")
	metricSizes      = define("sluice_stage_batch_events", histogram, "Events of a batch that was sent (by a sink: written).", "stage")
	metricAges       = define("sluice_stage_batch_age_seconds", histogram, "Age of a live batch, from when its first event was received by the node, when it was sent (by a sink: written). Of a source that is how long it gathered events.", "stage")
	metricCPU        = define("sluice_stage_cpu_seconds_total", counter, "CPU time of the stage's present process.", "stage")
	metricMemory     = define("sluice_stage_resident_memory_bytes", gauge, "Resident memory of the stage's present process, the shared binary included.", "stage")
)

// Of each edge, by the stage that reads it.
var (
	metricQueued = define("sluice_edge_queued_bytes", gauge, "Bytes of batches that wait in the stage's input.", "stage")
	metricUsed   = define("sluice_edge_buffer_used_bytes", gauge, "What they take of the buffer, with what the kernel needs for each.", "stage")
	metricLimit  = define("sluice_edge_buffer_limit_bytes", gauge, "The buffer's size: the stage above waits when it is full.", "stage")
	metricBehind = define("sluice_stage_edges_behind", gauge, "Edges below a stage that fans out that are full, and get a replay later.", "stage")
)

// Of each peer that a source hears.
var (
	metricPeer         = define("sluice_peer_info", gauge, "Always 1; the labels have the peer's address and what it calls itself.", "stage", "peer", "name")
	metricPeerUp       = define("sluice_peer_up", gauge, "1 while the peer is heard.", "stage", "peer")
	metricPeerHeard    = define("sluice_peer_last_heard_timestamp_seconds", gauge, "When the peer was heard last, in seconds since 1970.", "stage", "peer")
	metricPeerFlows    = define("sluice_peer_received_flows_total", counter, "Records about flows that the peer sent.", "stage", "peer")
	metricPeerReplayed = define("sluice_peer_replayed_flows_total", counter, "Of them, those that belong to replays.", "stage", "peer")
)

// Of what happens now and then.
var (
	metricReplays = define("sluice_replay_duration_seconds", histogram, "How long replays took, by the stage that replays, by reason and by result. The count of reason=\"commit\" is that of commits.", "stage", "reason", "result")
	metricCommand = define("sluice_command_duration_seconds", histogram, "How long administrators' commands took. A role has its name behind it, as in role primary, which is a takeover.", "command", "result")

	metricReloads    = define("sluice_config_reloads_total", counter, "Reloads of the configuration, by result.", "result")
	metricReloaded   = define("sluice_config_last_reload_successful", gauge, "1 unless the last reload failed: what was loaded before is in use then.")
	metricReloadTime = define("sluice_config_last_reload_success_timestamp_seconds", gauge, "When the configuration that is in use was loaded, in seconds since 1970.")
)
