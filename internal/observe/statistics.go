package observe

import (
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/core/control"
)

// maxStatistics bounds how many numbers of one stage are passed on, against a
// plugin that makes names up. A cache has two a peer, and 1024 peers at most.
const maxStatistics = 4096

// statistics makes metrics of what the stages themselves count: see
// MetricOf. It lives for one scrape, in which metrics of one name must agree.
type statistics struct {
	out  chan<- prometheus.Metric
	help map[string]string // of the first of each name
	typ  map[string]string
}

func newStatistics(out chan<- prometheus.Metric) *statistics {
	s := &statistics{out: out, help: map[string]string{}, typ: map[string]string{}}
	for _, m := range Metrics {
		s.typ[m.Name] = "taken"
	}
	return s
}

// MetricOf returns the name of the metric that a statistic of a stage is part
// of, by what kind of stage and which type of statistic it is: a cache's gauge
// flows is sluice_cache_flows, its counter inserted sluice_cache_inserted_total.
// What is lost is part of one metric, sluice_stage_losses_total.
func MetricOf(kind, name, typ string) string {
	switch typ {
	case "loss":
		return metricLosses.Name
	case "gauge":
		return "sluice_" + clean(kind) + "_" + clean(name)
	}
	return "sluice_" + clean(kind) + "_" + strings.TrimSuffix(clean(name), "_total") + "_total"
}

// clean makes part of a metric's name of what a plugin wrote.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(name))
}

func (s *statistics) collect(stage *control.StageStatus) {
	seen := map[string]bool{}
	for _, one := range stage.Statistics[:min(len(stage.Statistics), maxStatistics)] {
		if one.Type == "loss" {
			if id := one.Name + "\x00" + one.Peer; !seen[id] {
				seen[id] = true
				metricLosses.set(s.out, float64(one.Value), stage.Address, clean(one.Name), addressOf(one.Peer))
			}
			continue
		}
		s.add(stage, one, seen)
	}
}

func (s *statistics) add(stage *control.StageStatus, one control.Statistic, seen map[string]bool) {
	name := MetricOf(stage.Kind, one.Name, one.Type)
	names, values := labelsOf(stage.Address, one)
	if id := name + "\x00" + strings.Join(values, "\x00"); seen[id] {
		return
	} else {
		seen[id] = true
	}
	if typ, known := s.typ[name]; known && typ != one.Type {
		return // two plugins that differ in what the name means
	}
	s.typ[name] = one.Type
	if s.help[name] == "" {
		s.help[name] = one.Help
	}
	typ := prometheus.CounterValue
	if one.Type == gauge {
		typ = prometheus.GaugeValue
	}
	desc := prometheus.NewDesc(name, s.help[name], names, nil)
	if m, err := prometheus.NewConstMetric(desc, typ, float64(one.Value), values...); err == nil {
		s.out <- m
	}
}

// labelsOf returns a statistic's labels in a steady order.
func labelsOf(stage string, one control.Statistic) (names, values []string) {
	names, values = []string{"stage"}, []string{stage}
	if one.Peer != "" {
		names, values = append(names, "peer"), append(values, addressOf(one.Peer))
	}
	for _, name := range slices.Sorted(maps.Keys(one.Labels)) {
		if label := clean(name); !slices.Contains(names, label) {
			names, values = append(names, label), append(values, one.Labels[name])
		}
	}
	return names, values
}

// addressOf returns the address of a peer that is shown as "fw1 (10.0.0.1)".
func addressOf(peer string) string {
	if i := strings.LastIndex(peer, " ("); i >= 0 && strings.HasSuffix(peer, ")") {
		return peer[i+2 : len(peer)-1]
	}
	return peer
}
