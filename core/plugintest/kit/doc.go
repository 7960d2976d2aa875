// Package kit is the conformance kit for plugins: Check starts a plugin's
// executable as the runner does (package runner's own code: handshake, control
// over gRPC, edges of sockets), feeds it, disturbs it, and reports what it does
// otherwise than docs/protocol.md and docs/plugins.md say.
//
// It knows the four kinds and nothing of any plugin, so it judges what every
// plugin must do: whatever comes out of a filter must have gone into it, in that
// order and with the attributes that nobody knows; a cache must replay what it
// holds; and so on. Whether a filter drops the right flows is for the plugin's own
// tests, for which Stage is of use, too: it feeds events and collects what comes out.
//
//   - kit.go: options, the list of checks, the report.
//   - stage.go: one process at work. events.go: what it is fed with.
//   - control.go, data.go, faults.go, replays.go: the checks.
//   - report.go: the report for people and for programs.
//
// Package plugintest wraps it for Go tests, `sluice plugin check` for everybody.
package kit
