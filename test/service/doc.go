// Package service holds the tests of Sluice as an operator gets it: the Debian
// package is built, installed on a machine of its own, run by a real systemd,
// restarted, upgraded and removed again; and a pair under the real keepalived
// fails over.
//
// That machine is this one's root file system below an overlay that takes all
// writes, in namespaces of its own, with systemd as its process 1: see
// machine_test.go. It needs root and leaves nothing behind. To
// try another systemd, unpack its packages into a directory, name that in
// SLUICE_TEST_OVER, and go test -count=1.
package service
