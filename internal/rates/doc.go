// Package rates turns a node's counters into events a second.
//
// The runner tells how much has passed each stage since the stage's process was
// started (control.Status). A Meter is given one status after another and says
// what passed between the last two:
//
//	control.Client ── Status ── Meter ── Rates ── `sluice top`, `sluice graph --live`, the web page
//
// It asks nobody and keeps no more than two statuses. It knows no averages over
// longer times: who wants them has the counters as metrics.
package rates
