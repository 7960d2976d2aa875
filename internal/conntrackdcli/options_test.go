package conntrackdcli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What conntrackd 1.4.7 makes of these lines was found by running it; test/dropin
// compares the two again.
func TestParse(t *testing.T) {
	ask := func(command byte, o Options) Options {
		o.Mode, o.Command = Ask, command
		return o
	}
	for line, want := range map[string]Options{
		"":                 {},
		"-d":               {Mode: Daemon},
		"-d -C f":          {Mode: Daemon, Config: "f"},
		"-C f -s":          ask('s', Options{Config: "f"}),
		"-s -C f":          ask('s', Options{Config: "f"}),
		"-C f -C g -s":     ask('s', Options{Config: "g"}),
		"-s network":       ask('s', Options{Which: "network"}),
		"-s n":             ask('s', Options{Which: "network"}),
		"-s ct":            ask('s', Options{Which: "ct"}),
		"-i":               ask('i', Options{}),
		"-i ct":            ask('i', Options{Table: Flows}),
		"-i expect -x":     ask('i', Options{Table: Expectations, XML: true}),
		"-e exp":           ask('e', Options{Table: Expectations}),
		"-ix":              ask('i', Options{}),
		"-i -e":            ask('e', Options{}),
		"-i -e -x":         ask('e', Options{XML: true}),
		"-i -x -s":         ask('s', Options{}),
		"-c":               ask('c', Options{}),
		"-c expect":        ask('c', Options{Table: Expectations}),
		"-R ct":            ask('R', Options{Table: Flows}),
		"-F expect":        ask('F', Options{Table: Expectations}),
		"-f":               ask('f', Options{}),
		"-f internal":      ask('f', Options{Which: "internal"}),
		"-f ext":           ask('f', Options{Which: "external"}),
		"-B":               ask('B', Options{}),
		"-n":               ask('n', Options{}),
		"-t":               ask('t', Options{}),
		"-k":               ask('k', Options{}),
		"-v foo":           {Mode: ShowVersion},
		"-C f -h -s bogus": {Mode: ShowHelp, Config: "f"},
	} {
		var stdout, stderr strings.Builder
		if want.Config == "" {
			want.Config = DefaultConfig
		}
		got := Parse(strings.Fields(line), &stdout, &stderr)
		if diff := cmp.Diff(want, got); diff != "" || stdout.Len()+stderr.Len() > 0 {
			t.Errorf("%s: %s\nstdout: %s\nstderr: %s", line, diff, stdout.String(), stderr.String())
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for line, want := range map[string]struct {
		status  int
		message string
		usage   bool
	}{
		"-z":              {0, "Unknown option: -z", true},
		"--version":       {0, "Unknown option: --version", true},
		"foo -s":          {0, "Unknown option: foo", true},
		"stop":            {0, "Unknown option: stop", true},
		"-s network more": {0, "Unknown option: more", true},
		"-i foo":          {0, "Unknown option: foo", true},
		"-i -x ct":        {0, "Unknown option: ct", true},
		"-B foo":          {0, "Unknown option: foo", true},
		"-x":              {1, "Invalid parameters", true},
		"-x -i":           {1, "Invalid parameters", true},
		"-s -x":           {1, "Invalid parameters", true},
		"-i -x -x":        {1, "Invalid parameters", true},
		"-d -s":           {1, "Invalid parameters", true},
		"-s -d":           {1, "Invalid parameters", true},
		"-C":              {1, "Missing config filename", true},
		"-s bogus":        {1, "unknown parameter `bogus' for option `-s'", false},
		"-f ct -s":        {1, "unknown parameter `ct' for option `-f'", false},
		"-f internalx":    {1, "unknown parameter `internalx' for option `-f'", false},
	} {
		var stdout, stderr strings.Builder
		got := Parse(strings.Fields(line), &stdout, &stderr)
		if got.Mode != Done || got.Status != want.status || !strings.HasSuffix(stderr.String(), "[ERROR] "+want.message+"\n") {
			t.Errorf("%s: %+v, %s", line, got, stderr.String())
		}
		if usage := strings.Contains(stdout.String(), "Usage: conntrackd"); usage != want.usage {
			t.Errorf("%s: usage %v", line, usage)
		}
	}
}
