// Package recording reads and writes recordings: files of batches that passed an
// edge of a running pipeline, with the times at which they did. `sluice record`
// makes them; source replay, `sluice test` and people with a bug report read them.
//
// A recording is a gzip stream, and what is in it is a line and then frames, one
// after another: a header (About), batches as docs/batch.md has them, how many
// events were lost between two of them, and an end (End). docs/testing.md has the
// layout. The writer begins a new member of the gzip stream every second or so,
// so a file that was cut off, by a crash or a full disk, can be read up to there;
// that it has no end is then the last thing that the reader says.
//
// What a stage sends to who records it (core/plugin) has the same frames, without
// gzip, header and end.
//
// A reader trusts nothing: it takes no more memory than the largest batch,
// however long the file says that its frames are, and names the frame and the
// byte at which something is wrong. An Anonymizer makes addresses unknown.
package recording
