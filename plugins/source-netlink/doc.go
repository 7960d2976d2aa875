// Package sourcenetlink is the stage that tells a pipeline what the kernel's
// conntrack table does: every flow that begins, changes or ends, as the kernel
// reports it over netlink, and on request the whole table as a replay.
//
// Its parts are the reader (Run), which never lets the kernel wait; the queue,
// which keeps what a full edge does not take, in bounded memory, and the
// sender behind it; and the replayer, which dumps the table on a socket of its
// own and yields to what is live. What is lost on the way, in the kernel's
// buffer or in the queue, is counted and signalled, and the runner asks for a
// replay.
//
// The stage does not filter, merge or keep flows: that is for the stages below.
package sourcenetlink
