// Package plan compares two configurations and says what a runner of the first
// has to do to run the second: which stages go on as they are, which take other
// edges, which are replaced, why, and which replays that costs.
//
// It is pure: configurations and facts in, a control.Plan out. `sluice plan`
// shows that; `sluice reload` has the runner (core/runner) do it. So both say
// the same. It starts no process and knows none.
//
//   - plan.go: the comparison, stage by stage.
//   - start.go: what a stage is told when it starts, beside its configuration. A
//     stage of which that changes can't go on either.
//   - reason.go: which attributes differ.
//   - replay.go: which replays the changes ask for.
//   - settings.go: the runner block.
package plan
