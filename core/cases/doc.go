// Package cases runs tests of pipelines: files *.test.hcl that stand beside the
// pipelines, feed events to a stage or to a whole pipeline and state what must come
// out. `sluice test` is its command line; docs/testing.md is for who writes them.
//
// A test goes through these steps:
//
//  1. Load reads the files of tests, with diagnostics that point at their lines.
//  2. The pipelines that a file is about are loaded as a runner loads them.
//  3. The stages under test are started as processes, as a runner starts them
//     (core/plugintest/kit). The source is replaced by what the test feeds, the
//     sinks by what it states of what reaches them.
//  4. Each step's events pass stage after stage: the next one is fed when the one
//     before has worked on all of it, so a test has one outcome, whatever the
//     machine's load.
//  5. What came out is compared with what was stated, and the difference shown.
//
// It tests no sources and sinks, and nothing that needs a kernel's table: core/runner
// and the plugins have tests of their own.
package cases
