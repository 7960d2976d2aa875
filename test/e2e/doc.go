// Package e2e tests firewalls that run sluice together: the real binary, real
// packets, the real kernel. It has tests alone.
//
//   - converge: at rest a peer's cache equals the kernel's table, also after
//     stages were killed and stopped.
//   - takeover: connections live on, there and back; 100,000 flows.
//   - active: pairs whose packets may take either firewall.
//   - lifecycle: start, stop, kill, hang; several namespaces; no cache.
//   - examples: the files in pipelines/.
//   - upgrade: a pair moves from conntrackd to sluice under traffic.
//   - ftp: sessions move to the other firewall between the announcement of a data
//     connection and its opening; also to and from conntrackd.
//   - trio, third: three nodes, each with flows of its own; one runs conntrackd.
//
// How a node gets along with conntrackd is in test/interop.
package e2e
