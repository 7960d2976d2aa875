package interop

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/internal/testbed"
)

// A daemon is a conntrackd or what stands in its place, with a configuration
// file of its own, on a firewall.
type daemon struct {
	fw      *testbed.Firewall
	program string // the path, which ends in conntrackd
	dir     string // of everything that the configuration names
}

// dropIn returns the path of a link named conntrackd to the sluice under test.
func dropIn(t *testing.T) string {
	t.Helper()
	link := filepath.Join(t.TempDir(), "conntrackd")
	if err := os.Symlink(must[string](t)(filepath.Abs(binary)), link); err != nil {
		t.Fatal(err)
	}
	return link
}

// genuine returns the path of the installed conntrackd.
func genuine(t *testing.T) string {
	t.Helper()
	return must[string](t)(exec.LookPath("conntrackd"))
}

// newDaemon writes the configuration of a daemon, with a group's port and
// options of the mode.
func newDaemon(t *testing.T, fw *testbed.Firewall, program string, port int, mode string) *daemon {
	t.Helper()
	d := &daemon{fw, program, t.TempDir()}
	text := fmt.Sprintf(`Sync {
	Mode NOTRACK { %s }
	Multicast {
		IPv4_address 225.0.0.50
		Group %d
		IPv4_interface %s
		Interface sync
		SndSocketBuffer 1249280
		RcvSocketBuffer 1249280
		Checksum on
	}
	Options { ExpectationSync on }
}
General {
	HashLimit 65535
	LogFile %s
	LockFile %s
	UNIX { Path %s }
	NetlinkBufferSize 2097152
	NetlinkBufferSizeMaxGrowth 8388608
	Filter From Userspace {
		Address Ignore { IPv4_address 127.0.0.1 IPv6_address ::1 }
	}
}
`, mode, port, fw.Sync.V4.Addr(), d.path("log"), d.path("lock"), d.path("ctl"))
	if err := os.WriteFile(d.path("conntrackd.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

// An outcome is what a command has printed, and its exit status.
type outcome struct {
	stdout, stderr string
	status         int
}

// run runs the program with its configuration and arguments.
func (d *daemon) run(t *testing.T, args ...string) outcome {
	t.Helper()
	cmd := d.fw.Command(d.program, append([]string{"-C", d.path("conntrackd.conf")}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// do runs a command that must end with the status 0.
func (d *daemon) do(t *testing.T, args ...string) string {
	t.Helper()
	o := d.run(t, args...)
	if o.status != 0 {
		t.Fatalf("%s %v: status %d\n%s%s", d.program, args, o.status, o.stdout, o.stderr)
	}
	return o.stdout
}

// start runs the daemon in the background, until the test ends.
func (d *daemon) start(t *testing.T) {
	t.Helper()
	d.do(t, "-d")
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(d.path("log"))
			t.Logf("%s on %s wrote:\n%s", d.program, d.fw, log[max(0, len(log)-8<<10):])
		}
		d.run(t, "-k")
		testbed.Eventually(t, patience, d.gone)
	})
	testbed.Eventually(t, patience, func() error { // conntrackd's parent does not wait until it listens
		if o := d.run(t, "-s"); o.status != 0 {
			return errors.New(o.stderr)
		}
		return nil
	})
}

// gone is a condition: the daemon has ended and cleaned up.
func (d *daemon) gone() error {
	for _, name := range []string{"lock", "ctl"} {
		if _, err := os.Lstat(d.path(name)); err == nil {
			return errors.New(d.path(name) + " is there")
		}
	}
	return nil
}

var (
	activeSince = regexp.MustCompile(`\[active since \d+s\]`)
	number      = regexp.MustCompile(` *\d+`)
	header      = regexp.MustCompile(`(?m)^\[[^]]*\] \(pid=\d+\) `)
)

// unmarked leaves out the mark 0, which conntrackd prints only of flows that it
// did not learn by their NEW event.
// The state of an SCTP flow stands in its XML under the name of the TCP state of
// that number.
var unmarked = strings.NewReplacer(" mark=0", "", "<mark>0</mark>", "", "<state>FIN_WAIT</state>", "<state>ESTABLISHED</state>")

// dump returns the lines of a dump in order, without the times.
func (d *daemon) dump(t *testing.T, args ...string) []string {
	t.Helper()
	lines := strings.Split(unmarked.Replace(activeSince.ReplaceAllString(d.do(t, args...), "[active since Ns]")), "\n")
	slices.Sort(lines)
	return lines
}

// form is a text whose numbers are replaced by their width.
func form(text string) string {
	return number.ReplaceAllStringFunc(text, func(n string) string { return strings.Repeat("N", len(n)) })
}

// sameDump is a condition: two daemons print the same, and of it something.
func sameDump(t *testing.T, want, got *daemon, args ...string) func() error {
	return func() error {
		a, b := want.dump(t, args...), got.dump(t, args...)
		if len(a) < 2 {
			return fmt.Errorf("%v: conntrackd prints nothing", args)
		}
		if diff := cmp.Diff(a, b); diff != "" {
			return fmt.Errorf("%v: %s", args, diff)
		}
		return nil
	}
}

// count reads how many entries a cache has, or that were created.
func (d *daemon) count(t *testing.T, block, line string) int {
	t.Helper()
	_, rest, _ := strings.Cut(d.do(t, "-s"), block+":\n")
	_, rest, found := strings.Cut(rest, line)
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		t.Fatalf("%s: no %s of %s", d.program, line, block)
	}
	return must[int](t)(strconv.Atoi(fields[0]))
}

// rivals are two pairs on the same firewalls: conntrackd on both, and the
// drop-in on both, each with a group of its own.
type rivals struct {
	*site
	theirs, ours [2]*daemon
}

func newRivals(t *testing.T, mode string) *rivals {
	t.Helper()
	r := &rivals{site: newSite(t)}
	for i, fw := range []*testbed.Firewall{r.FW1, r.FW2} {
		r.theirs[i] = newDaemon(t, fw, genuine(t), 3780, mode)
		r.ours[i] = newDaemon(t, fw, dropIn(t), 3790, mode)
		r.theirs[i].start(t)
		r.ours[i].start(t)
	}
	return r
}

// Two daemons that see the same kernel print the same: every dump and every
// statistic, flows of all kinds and expectations, in the same form.
func TestDropInPrintsWhatConntrackdPrints(t *testing.T) {
	r := newRivals(t, "CommitTimeout 180 PurgeTimeout 1")
	r.traffic(t)
	for _, f := range families { // expectations that wait
		r.offer(t, f.server, f.client, f.outsideVIP, f.client.StringExpanded())
	}
	for _, command := range [][]string{{"-i"}, {"-i", "-x"}, {"-i", "ct", "-x"}, {"-i", "expect"}, {"-i", "expect", "-x"}} {
		testbed.Eventually(t, patience, sameDump(t, r.theirs[0], r.ours[0], command...))
	}
	for _, command := range [][]string{{"-e"}, {"-e", "-x"}, {"-e", "expect"}, {"-e", "expect", "-x"}} {
		testbed.Eventually(t, patience, sameDump(t, r.theirs[1], r.ours[1], command...))
	}
	for i := range 2 {
		for _, which := range []string{"", "network", "cache", "runtime", "link", "rsqueue", "process", "queue", "ct", "expect", "q", "run"} {
			args := strings.Fields("-s " + which)
			if diff := cmp.Diff(form(r.theirs[i].do(t, args...)), form(r.ours[i].do(t, args...))); diff != "" {
				t.Errorf("%v: %s", args, diff)
			}
		}
	}
	r.injectOthers(t)
	for _, command := range [][]string{{"-i"}, {"-i", "-x"}} {
		testbed.Eventually(t, patience, sameDump(t, r.theirs[0], r.ours[0], command...))
	}
	for i, block := range []string{"cache internal", "cache external"} {
		for _, line := range []string{"current active connections:", "connections created:"} {
			if want, got := r.theirs[i].count(t, block, line), r.ours[i].count(t, block, line); got != want {
				t.Errorf("%s: %s %d, conntrackd %d", block, line, got, want)
			}
		}
	}
	if out := must[string](t)(r.FW1.Run(binary, "status", "--socket", r.ours[0].path("ctl"))); !strings.Contains(out, "pipeline local") {
		t.Errorf("sluice status: %s", out)
	}
}

// injectOthers makes flows of protocols that no traffic here has. conntrackd
// does not replicate all that it prints of them.
func (s *site) injectOthers(t *testing.T) {
	t.Helper()
	for _, flow := range []string{
		"-p sctp --sport 1000 --dport 80 --state ESTABLISHED --orig-vtag 5 --reply-vtag 6 -u SEEN_REPLY,ASSURED -m 9",
		"-p udplite --sport 1000 --dport 80",
		"-p gre --srckey 0x12 --dstkey 0x34",
		"-p 50 -w 7",
	} {
		must[string](t)(s.FW1.Run("conntrack", append([]string{"-I", "-t", "300", "-s", "10.1.0.2", "-d", "10.2.0.2"}, strings.Fields(flow)...)...))
	}
}

// Command lines get the same exit status and the same message, whatever is
// wrong with them.
func TestDropInTakesConntrackdsCommandLines(t *testing.T) {
	r := newRivals(t, "")
	for _, line := range []string{
		// The examples of conntrackd(8), on a daemon that runs already.
		"-d", "-i", "-e", "-c",
		// Every option, with every argument.
		"-i ct", "-i expect", "-i -x", "-i expect -x", "-e ct", "-e -x", "-f", "-f internal", "-f external", "-F", "-F ct", "-F expect",
		"-c ct", "-c expect", "-B", "-n", "-R", "-R ct", "-R expect", "-t", "-h", "-v",
		// What it makes of several, of shortened ones, and of mistakes.
		"-i -e", "-i -e -x", "-s -i", "-ix", "-s n", "-f int", "-c exp",
		"-z", "--version", "foo", "-s network cache", "-i foo", "-F foo", "-c foo", "-B foo", "-n foo", "-R foo", "-t foo", "-x", "-x -i", "-x -s",
		"-s -x", "-i -x -x", "-d -s", "-s -d", "-s bogus", "-f foo", "-f ct", "-f internalx", "-v foo", "-C /nonexistent -s", "-C /nonexistent -v",
		"-k foo", "foo -s",
	} {
		if diff := cmp.Diff(r.theirs[0].outcome(t, line), r.ours[0].outcome(t, line), cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
	}
	for _, d := range []*daemon{r.theirs[0], r.ours[0]} {
		d.do(t, "-k")
		testbed.Eventually(t, patience, d.gone)
	}
	for _, line := range []string{"-k", "-s", "-c", "-t"} { // nobody runs
		if diff := cmp.Diff(r.theirs[0].outcome(t, line), r.ours[0].outcome(t, line), cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
	}
}

// outcome runs a command line and leaves out what may differ: times, process
// ids, the paths of the daemon's own files, the text of usage and version
// behind their first words, and what conntrackd -d says into the void.
func (d *daemon) outcome(t *testing.T, line string) outcome {
	t.Helper()
	o := d.run(t, strings.Fields(line)...)
	o.stderr = header.ReplaceAllString(strings.ReplaceAll(o.stderr, d.dir, "DIR"), "")
	if line == "-d" {
		o.stderr = ""
	}
	for _, start := range []string{"Connection tracking userspace daemon v1.4.7\nUsage: ", "Connection tracking userspace daemon v1.4.7."} {
		if strings.HasPrefix(o.stdout, start) {
			o.stdout = start
		}
	}
	o.stdout = unmarked.Replace(form(activeSince.ReplaceAllString(o.stdout, "")))
	return o
}

// What commands do is what conntrackd's do.
func TestDropInDoesWhatConntrackdDoes(t *testing.T) {
	r := newRivals(t, "CommitTimeout 180 PurgeTimeout 1")
	r.traffic(t)
	theirs, ours := r.theirs[1], r.ours[1]
	testbed.Eventually(t, patience, sameDump(t, theirs, ours, "-e"))

	// The same flows come into the kernel, and can be thrown out of it again.
	var tables []testbed.Table
	for _, d := range []*daemon{theirs, ours} {
		known := d.count(t, "cache external", "current active connections:")
		d.do(t, "-c")
		testbed.Eventually(t, patience, has(r.FW2.Table, known, func(f testbed.Flow) bool { return f.Timeout > 100 }))
		tables = append(tables, r.FW2.MustTable(t))
		d.do(t, "-F")
		testbed.Eventually(t, patience, empty(r.FW2.Table))
	}
	if diff := committed.Diff(tables[0], tables[1]); diff != "" {
		t.Errorf("committed: %s", diff)
	}

	all := len(ours.dump(t, "-e"))
	refills := func(where *daemon, command string) {
		t.Helper()
		ours.do(t, "-f", "external")
		if n := len(ours.dump(t, "-e")); n != 1 {
			t.Errorf("-f external has left %d", n-1)
		}
		where.do(t, command)
		testbed.Eventually(t, patience, func() error {
			if n := len(ours.dump(t, "-e")); n != all {
				return fmt.Errorf("%s: %d of %d", command, n, all)
			}
			return nil
		})
	}
	refills(ours, "-n")
	refills(r.ours[0], "-B")

	// What was committed becomes this node's with -R, and goes with -t.
	ours.do(t, "-c")
	if n := len(ours.dump(t, "-i")); n != 1 {
		t.Errorf("-i shows %d flows before -R", n-1)
	}
	ours.do(t, "-R")
	if n := len(ours.dump(t, "-i")); n != all {
		t.Errorf("-i shows %d flows of %d after -R", n, all)
	}
	ours.do(t, "-f", "internal")
	if n := len(ours.dump(t, "-i")); n != 1 {
		t.Errorf("-f internal has left %d", n-1)
	}
	ours.do(t, "-R")

	// A commit calls a purge off, or it would delete what is committed.
	ours.do(t, "-t")
	ours.do(t, "-c")
	if status := must[*control.Status](t)(control.NewClient(ours.path("ctl")).Status(t.Context())); status.Purge != nil {
		t.Errorf("a purge in %v, after -c", time.Until(*status.Purge))
	}

	ours.do(t, "-t")
	testbed.Eventually(t, patience, empty(r.FW2.Table))
	testbed.Eventually(t, patience, func() error {
		if n := len(ours.dump(t, "-i")); n != 1 {
			return fmt.Errorf("-i shows %d flows after the purge", n-1)
		}
		return nil
	})
}
