// Package confine starts a process that can do no more than it is told that it
// may: its user, capabilities, files, network, system calls and limits.
//
// The runner (core/runner) decides what a stage may do, and says so in Rules.
// It does not start the stage's program itself but its own executable again,
// with the rules in the environment. Main, the first thing in that process's
// main function, takes on the rules, from then on irrevocable, and executes the
// program in its own place, with the same process id. Doing so between fork and
// exec would be the other way; Go has no room for code there.
//
// What each step is for:
//
//   - no_new_privs: no executable gives back what was taken.
//   - capabilities: all sets, the bounding set where that is allowed.
//   - a user of its own: no other process can be traced or signalled, and no
//     file of another opened, even where the kernel lacks the next two.
//   - Landlock: files, signals and abstract sockets; see landlock.go.
//   - seccomp: what of the kernel can be called at all; see syscalls.go.
//   - limits: memory, descriptors, threads; no real-time scheduling.
//
// It knows nothing of stages and plugins. What the kernel lacks is left out, and
// Support tells.
package confine
