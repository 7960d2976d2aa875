// Package cachememory is the bundled plugin cache "memory": it keeps flows in
// memory, merges their changes and passes them on, one record a flow and batch.
//
// It stands between a source and a sink. A cache is where replays end: it
// consumes their marks, removes what a complete replay did not name, and
// replays what it holds when the runner asks it to. With hold set it passes
// nothing on until a commit.
//
// From the inside out:
//
//   - table.go, index.go and tails.go store flows in memory without pointers.
//   - core.go has the policy: what a record, live or replayed, does to the
//     table, and which records leave for it; owners.go and replays.go know who
//     a flow belongs to and which replays are under way. All of it is a
//     function of its inputs and does no input or output.
//   - cache.go, replay.go and command.go are the shell: locks, sending,
//     pacing, signals, the administrator's commands.
//
// Two locks, always taken in this order: the output's, then the table's. Every
// batch is built under both and sent under the first alone, so live and
// replayed records leave in the order in which the table changed, while an
// output that blocks holds up neither dumps nor statistics.
//
// The cache persists nothing, ages nothing (only the kernel ends flows) and
// starts no replay by itself.
package cachememory
