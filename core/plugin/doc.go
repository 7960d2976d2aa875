// Package plugin is what the author of a plugin imports. Bundled plugins use it
// like everybody else.
//
// A plugin is a Definition that is given to Serve: its kind, its type, and a
// configuration struct that is, or builds, the stage: a Source, a Filter, a
// Cache or a Sink. A filter needs no more than a struct and one method.
//
// The life of a stage, always in this order:
//
//  1. describe: the runner asks for kind, type and schema (SchemaOf).
//  2. configure: the administrator's block is decoded into the configuration
//     (Decode), which may Validate itself and name its Traits. No side effects.
//  3. build: Builder.Build, if the configuration is not the stage itself.
//  4. open: Opener.Open, with the Host. The last thing that may fail a start.
//  5. run: batches come (Apply, Write, Filter) or are made (Run).
//  6. replay, statistics and commands: at any time from here on, beside 5.
//  7. drain: the input ends, or the source's context; Drainer.Drain.
//  8. close: io.Closer, then the process exits with 0.
//
// A stage that fails exits with 1 and is started again from 1; the runner has
// the stage above it replay what was lost.
//
// Control goes over go-plugin (package stagepb has the protocol); data goes
// over inherited sockets (see Output) in the form of package flow. This package
// starts no processes: that is the runner's work.
package plugin
