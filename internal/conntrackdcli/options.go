package conntrackdcli

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// DefaultConfig is what conntrackd reads without -C.
const DefaultConfig = "/etc/conntrackd/conntrackd.conf"

// Version is the release of conntrackd that is reproduced.
const Version = "1.4.7"

// A Mode is what a command line asks for.
type Mode int

// The modes. Foreground is what no command means.
const (
	Foreground  Mode = iota
	Daemon           // -d
	Ask              // a command for the daemon that runs
	ShowVersion      // -v
	ShowHelp         // -h
	Done             // there is nothing more to do: Options.Status
)

// A Table is what a command is about.
type Table int

// The tables. Both is what a command without an argument is about, but for
// dumps, which then show flows.
const (
	Both Table = iota
	Flows
	Expectations
)

// Options is a command line of conntrackd.
type Options struct {
	Mode    Mode
	Config  string // the path of conntrackd.conf
	Command byte   // of Ask: i, e, f, F, c, B, n, R, t, s or k
	Table   Table  // of -i, -e, -F, -c and -R
	Which   string // of -f: "internal", "external" or ""; of -s: one of Statistics, or ""
	XML     bool   // of -i and -e
	Status  int    // of Done
}

// Statistics are the arguments of -s.
var Statistics = []string{"network", "cache", "runtime", "link", "rsqueue", "process", "queue", "ct", "expect"}

var caches = []string{"internal", "external"}

// Parse reads the arguments of a command line, without the program's name. What
// is wrong with them goes to stderr, and what then helps to stdout; the mode is
// Done then.
//
// As conntrackd has it: the last command counts; -x belongs right behind -i or
// -e, and their argument; an argument may be shortened; what follows -v or -h is
// not read; an option that there is not is answered with the usage and the exit
// status 0. Unlike conntrackd, a word without a dash is never taken for the
// option that its second letter names, and -C without a file does not start a
// daemon.
func Parse(args []string, stdout, stderr io.Writer) Options {
	p := parser{args: args, o: Options{Config: DefaultConfig}, stdout: stdout, stderr: stderr}
	for len(p.args) > 0 && !p.ended {
		word := p.args[0]
		p.args = p.args[1:]
		if len(word) < 2 || word[0] != '-' {
			p.unknown(word)
			break
		}
		p.option(word)
	}
	return p.o
}

type parser struct {
	args           []string
	o              Options
	ended          bool
	stdout, stderr io.Writer
}

func (p *parser) end(mode Mode, status int) {
	p.o.Mode, p.o.Status, p.ended = mode, status, true
}

// option reads one option: only its letter counts, as in conntrackd.
func (p *parser) option(word string) {
	switch letter := word[1]; letter {
	case 'd':
		if p.o.Mode == Ask {
			p.invalid()
			return
		}
		p.o.Mode = Daemon
	case 'C':
		if len(p.args) == 0 {
			Report(p.stderr, Failure, "Missing config filename")
			p.usage(1)
			return
		}
		p.o.Config, p.args = p.args[0], p.args[1:]
	case 'i', 'e', 'c', 'R', 'F':
		p.command(letter)
		p.o.Table = p.table()
	case 'B', 'n', 't', 'k':
		p.command(letter)
	case 'f':
		p.command(letter)
		p.o.Which = p.argument(letter, caches)
	case 's':
		p.command(letter)
		p.o.Which = p.argument(letter, Statistics)
	case 'x':
		if p.o.Mode != Ask || p.o.XML || p.o.Command != 'i' && p.o.Command != 'e' {
			p.invalid()
			return
		}
		p.o.XML = true
	case 'v':
		p.end(ShowVersion, 0)
	case 'h':
		p.end(ShowHelp, 0)
	default:
		p.unknown(word)
	}
}

// command takes a command, which takes the place of the one before.
func (p *parser) command(letter byte) {
	if p.o.Mode == Daemon {
		p.invalid()
		return
	}
	p.o = Options{Mode: Ask, Config: p.o.Config, Command: letter}
}

// table reads ct or expect, or the beginning of either.
func (p *parser) table() Table {
	if len(p.args) == 0 || p.ended {
		return Both
	}
	word := p.args[0]
	for i, name := range []string{"ct", "expect"} {
		if word != "" && strings.HasPrefix(name, word) {
			p.args = p.args[1:]
			return Flows + Table(i)
		}
	}
	return Both
}

// argument reads one of several names, or the beginning of one.
func (p *parser) argument(letter byte, names []string) string {
	if len(p.args) == 0 || strings.HasPrefix(p.args[0], "-") || p.ended {
		return ""
	}
	word := p.args[0]
	p.args = p.args[1:]
	i := slices.IndexFunc(names, func(name string) bool { return strings.HasPrefix(name, word) })
	if i < 0 {
		Report(p.stderr, Failure, fmt.Sprintf("unknown parameter `%s' for option `-%c'", word, letter))
		p.end(Done, 1)
		return ""
	}
	return names[i]
}

func (p *parser) invalid() {
	Report(p.stderr, Failure, "Invalid parameters")
	p.usage(1)
}

func (p *parser) unknown(word string) {
	Report(p.stderr, Failure, "Unknown option: "+word)
	p.usage(0)
}

func (p *parser) usage(status int) {
	_ = WriteUsage(p.stdout) // there is nobody left to tell
	p.end(Done, status)
}
