// Package manual makes the manual pages: sluice(1) and one for each command, of
// the commands themselves; sluice.hcl(5), of docs/pipelines.md and the schema of
// the runner block; and one for each bundled plugin, sluice-KIND-TYPE(5), of the
// plugin's README and schema. So they say what the documentation says.
//
// It is used when packages are built, by a test of cmd/sluice, which alone knows
// the commands; it is no part of the binary. Pages are Markdown until the last
// step, which go-md2man does; what roff can't show well, tables and links from
// page to page, is rewritten before.
package manual
