// Package vendor holds the tests of what a vendor of plugins meets: a scaffold that
// builds and runs, the conformance kit on good and on hostile plugins, examples in
// Go and in Python, versions that do not match, and a runner that goes on while a
// plugin does its worst.
//
//   - hostile/ is one program that is every hostile plugin, by its file's name.
//   - testdata/protocol1 is a plugin that speaks version 1 of the protocol by
//     itself, and is never changed.
//
// Each program is built once. The tests need no privilege.
package vendor
