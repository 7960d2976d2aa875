// Package control is the administrator's socket: what `sluice status`, `dump`,
// `commit` and the other commands say to a running node, and what it answers.
//
// The runner implements Backend. Listen makes the socket, a Server puts the
// backend behind it, and a Client speaks to it from another process:
//
//	sluice commit ── Client ── Unix socket ── Server ── Backend (the runner)
//
// The protocol is HTTP/1.1 with JSON over a Unix stream socket, so that curl
// and every language's library can speak it:
//
//	GET  /v1/status                          a Status
//	GET  /v1/dump?target=T&json=1&arg=A…     flows, one a line (what=expectations,
//	                                         what=stats: those); a failure after
//	                                         the first line is in the trailer
//	                                         Sluice-Error
//	GET  /v1/tap?target=T&json=1&arg=A…      what passes a stage, until the caller
//	                                         goes away
//	POST /v1/do  (a Request)                 a Step a line as each ends, then
//	                                         {"done":true,"error":"…"}
//
// A failure before the first line is {"error":"…"} with a status other than
// 200. Fields may be added to what is sent, so programs ignore those that they
// do not know; other changes get another version in the path.
//
// Who may connect is decided by the socket's owner, group and mode, and by
// nothing else. The package knows no pipelines: whether a target exists is the
// backend's to say. It does not write for people: cmd/sluice does.
package control
