// Package testbed builds small networks inside Linux network namespaces and
// drives them: firewalls that track connections, clients and servers that send
// real packets through them, kernel tables to compare, and a conntrackd to
// talk to. Every test on the real kernel, the benchmark and the demo use it.
//
// Its parts, from the bottom up:
//
//   - Namespace: a named namespace; run functions, sockets and processes in it.
//   - Process: a child with its output kept, stopped by its pid, never leaked.
//   - Single, Pair and Group: client, one, two or more firewalls, server; IPv4
//     and IPv6.
//   - Server, Transfer, Conversation, Churn, UDP, Ping: bounded traffic with checked content;
//     FTPServer and FTP: control connections that make a helper expect others.
//   - Injector: synthetic conntrack entries by the hundred thousand.
//   - Table and Diff: what the kernel tracks, in a form that can be compared.
//   - Conntrackd: the peer that is in use today.
//
// Constructors named New return errors and leave closing to the caller, so that
// programs can use them; their Must twins take a test, skip it where the
// machine lacks something (see Require) and clean up when it ends.
//
// Whatever a killed run leaves behind carries its process id, and the next run
// sweeps it. The package needs root; it never touches the host's own network
// but for nf_conntrack_max, and that only through RaiseConntrackMax.
//
// Table and ParseFlows are oracles for the project's own codecs, so nothing in
// this package may import those.
package testbed
