// Package top is the screen of `sluice top`: the stages of a running node with
// their rates, anew every two seconds.
//
// It is a model of bubbletea: messages come in (a status, a key, the screen's
// size), a text goes out. What it asks the runner is a function that the caller
// gives, and the time comes with each status, so tests feed it and compare
// screens. It changes nothing on the node, and fits into 80 columns.
package top
