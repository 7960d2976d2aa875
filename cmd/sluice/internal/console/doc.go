// Package console writes what the commands show to people: the table of
// `sluice status`, the steps of a command that acts, and numbers in units that
// can be read at a glance.
//
// Its functions take what a runner answered and write text; they ask nobody,
// and the time is an argument, so that tests compare whole screens. Nothing is
// wider than Width. Programs get JSON instead, which is the control protocol's
// own and is written here only for the commands' flag -o json.
package console
