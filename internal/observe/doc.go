// Package observe serves what a running node tells of itself to others than its
// administrator: metrics for Prometheus, health for whoever starts and stops
// nodes, and a page for a browser.
//
//	runner ── Backend ── Server ── GET /metrics   everything, for Prometheus
//	                               GET /healthz   does it work
//	                               GET /readyz    is it in sync
//
// The numbers are those of control.Status, which the stages are asked for when
// somebody asks, at most a few times a second: nothing is collected in between,
// and a stage that hangs is shown as it was. Only what Status does not keep is
// counted here as it happens: how long replays and commands took, and reloads.
//
//   - metrics.go: the metrics by name. The documentation is made from them.
//   - collector.go, statistics.go: from a Status to Prometheus' form.
//   - page.go, page/: the page. It works without its script, which only puts the
//     present state into it, and loads nothing from elsewhere.
//   - server.go: the listener, with TLS and passwords by Prometheus' own
//     exporter-toolkit.
//
// Nothing here changes a node, and no flow is shown but for those that lines of
// the log name: what is served is meant to be read by everyone who can connect.
package observe
