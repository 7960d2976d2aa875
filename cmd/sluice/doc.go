// Command sluice runs pipelines and is the administrator's hand on a running
// node. `sluice help` lists its commands.
//
// The package holds no logic of its own. It reads flags, and calls
// core/pipeline to load and format configurations, core/runner to run them and
// core/control to speak to the runner. Each subcommand has a file. What is
// printed for people is laid out by internal/console; programs get what the
// control protocol sends (-o json).
//
// The binary also contains the bundled plugins: the runner executes it again,
// as `sluice plugin-exec KIND-TYPE`, for each stage. plugins.go lists them; a
// new one is a line there.
//
// Called by the name conntrackd it is `sluice conntrackd`: conntrackd.go and
// conntrackdserve.go.
//
// Exit status: 0 done, 1 failed, 2 not understood.
package main
