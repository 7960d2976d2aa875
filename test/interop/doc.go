// Package interop tests Sluice against conntrackd 1.4.7, the daemon that it
// replaces and that it must get along with while a site moves over: one
// firewall of a pair runs sluice, the other conntrackd, and neither knows.
//
// It has tests alone. They need root, network namespaces and conntrackd; real
// packets pass real kernels, and what one side says it knows is compared with
// the kernel's table and with what the other side holds.
//
//   - send: sluice tells conntrackd, which keeps, commits and takes over.
//   - receive: conntrackd tells sluice, which does the same.
//   - takeover: real downloads go on, whoever takes over from whom.
//   - through: active-active, where each writes into its kernel at once.
//   - restart: either side is killed and comes back.
//   - lab: everything that a flow or an expectation can have, between all four
//     pairs of sender and receiver at once; faults lists what conntrackd loses.
//   - dropin: sluice called as conntrackd, beside conntrackd on the same kernel:
//     what they print, answer and do.
//   - notify: keepalived's script drives it, and conntrackd, to and fro.
//   - hostile: bytes that no node sends reach a sluice that works.
//
// What one firewall has and the other can't is left out of comparisons:
// timeouts run in each kernel for itself, and ids, use counts, counters and TCP
// flags are never sent. Everything else must be equal, all status bits
// included, but where a test says why not. How two nodes of sluice get along is
// in test/e2e; single messages, byte by byte, are in internal/notrack.
package interop
