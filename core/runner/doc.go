// Package runner runs pipelines: it starts a process for every stage, wires
// them with sockets, watches them, and has what was lost replayed.
//
// It stands between a checked configuration (package pipeline) and the
// processes (package plugin is their side). It knows the four kinds of stage and
// the traits that they tell it, but no concrete plugin, and no flow ever passes
// through it.
//
//   - process.go, spawn.go, stderr.go: one child, from fork to wait.
//   - edge.go: the sockets between stages, which outlive the processes.
//   - stage.go, watch.go: supervision. A stage that dies or hangs is started
//     again and finds its sockets as they were.
//   - replay.go, link.go, recover.go, signals.go: the one recovery mechanism.
//     Whoever holds state replays it between two marks; the next cache sweeps.
//   - commands.go, role.go, purge.go, status.go: the administrator's side.
//   - catalog.go: asks plugins what they are, to check a configuration.
package runner
