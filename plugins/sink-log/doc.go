// Package sinklog is the stage that logs flows: a line for each that ended, or
// also for those that began or changed, to a file or to syslog. It is what
// conntrackd's statistics mode is for.
//
// Events come in batches (Write), become lines (text or JSON), and wait in
// bounded memory for a writer of its own, which follows the file when logrotate
// moves it away. So a full disk or a syslog daemon that hangs never holds up the
// pipeline: what finds no room, or can't be written, is counted as lost.
//
// The stage keeps no flows and computes no sums. Records of a replay say what
// there is and not what happened: they are not logged, so what was lost above
// this stage is not in the log. Counters and times are the kernel's, where it
// keeps them.
package sinklog
