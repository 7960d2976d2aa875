package interop

import (
	"errors"
	"fmt"
	"testing"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// committed compares kernels. A kernel takes no entry that says that it was
// expected: whoever commits clears this bit. All others must have come over.
var committed = testbed.Comparison{Status: ^uint32(testbed.StatusExpected)}

// A source tells what somebody knows.
type source func() (testbed.Table, error)

// peers is what a node of sluice knows from its peers.
func peers(n *node.Node) source {
	return func() (testbed.Table, error) { return n.Table("peers") }
}

// local is what a node of sluice knows of its own kernel.
func local(n *node.Node) source {
	return func() (testbed.Table, error) { return n.Table("local") }
}

// text is the same as people and scripts read it.
func text(n *node.Node, target string) source {
	return func() (testbed.Table, error) {
		out, err := n.Sluice("dump", target)
		if err != nil {
			return nil, err
		}
		return testbed.ParseFlows(out)
	}
}

// same is a condition: two sources tell the same.
func same(c testbed.Comparison, want, got source) func() error {
	return func() error {
		w, err := want()
		if err != nil {
			return err
		}
		g, err := got()
		if err != nil {
			return err
		}
		return c.Same(w, g)
	}
}

// all is a condition: these hold.
func all(conditions ...func() error) func() error {
	return func() error {
		for _, c := range conditions {
			if err := c(); err != nil {
				return err
			}
		}
		return nil
	}
}

// has is a condition: a source knows flows as described by match, so many.
func has(s source, count int, match func(testbed.Flow) bool) func() error {
	return func() error {
		table, err := s()
		if err != nil {
			return err
		}
		if n := len(table.Where(match)); n != count {
			return fmt.Errorf("%d flows match, want %d, among\n%s", n, count, table)
		}
		return nil
	}
}

// empty is a condition: a source knows nothing.
func empty(s source) func() error {
	return has(s, 0, func(testbed.Flow) bool { return true })
}

// between matches the flow of a connection by the client's port and the port it
// was made to.
func between(client, server uint16) func(testbed.Flow) bool {
	return func(f testbed.Flow) bool { return f.Orig.SrcPort == client && f.Orig.DstPort == server }
}

// everyKind checks that a table holds what makes its comparison mean something.
func everyKind(t *testing.T, table testbed.Table) {
	t.Helper()
	for name, match := range map[string]func(testbed.Flow) bool{
		"ESTABLISHED":     func(f testbed.Flow) bool { return f.TCP == testbed.Established },
		"TIME_WAIT":       func(f testbed.Flow) bool { return f.TCP == testbed.TimeWait },
		"CLOSE":           func(f testbed.Flow) bool { return f.TCP == testbed.Close },
		"UDP":             func(f testbed.Flow) bool { return f.Proto == 17 && f.Status&testbed.StatusSeenReply != 0 },
		"unanswered":      func(f testbed.Flow) bool { return f.Status&testbed.StatusSeenReply == 0 },
		"ICMP":            func(f testbed.Flow) bool { return f.Proto == 1 || f.Proto == 58 },
		"source NAT":      func(f testbed.Flow) bool { return f.Status&0x30 == testbed.StatusSrcNAT },
		"destination NAT": func(f testbed.Flow) bool { return f.Status&0x30 == testbed.StatusDstNAT },
		"both":            func(f testbed.Flow) bool { return f.Status&0x30 == 0x30 },
		"translated port": func(f testbed.Flow) bool { return f.Orig.DstPort != f.Reply.SrcPort },
		"mark":            func(f testbed.Flow) bool { return f.Mark == mark },
		"labels":          func(f testbed.Flow) bool { return f.Labels != "" },
		"zone":            func(f testbed.Flow) bool { return f.Zone == zone },
		"helper":          func(f testbed.Flow) bool { return f.Helper == "ftp" },
		"master":          func(f testbed.Flow) bool { return f.Master.Src.IsValid() },
	} {
		for _, v6 := range []bool{false, true} {
			if len(table.Where(func(f testbed.Flow) bool { return f.Orig.Src.Is6() == v6 && match(f) })) == 0 {
				t.Errorf("no flow with %s, IPv6 %v, in\n%s", name, v6, table)
			}
		}
	}
}

// undisturbed checks that conntrackd refused and missed nothing.
func undisturbed(t *testing.T, d *testbed.Daemon) {
	t.Helper()
	for _, words := range []string{
		"Malformed messages", "Wrong protocol version", "Malformed header", "Malformed payload",
		"Bad message type", "Truncated message", "Bad message size", "Packets lost", "Packets before",
	} {
		if n := must[int64](t)(d.Counter("network", words)); n != 0 {
			t.Errorf("conntrackd counted %s: %d", words, n)
		}
	}
	for _, words := range []string{"Error send", "Error recv"} {
		if n := must[int64](t)(d.Counter("network", words)); n != 0 {
			t.Errorf("conntrackd counted %s: %d", words, n)
		}
	}
}

// unharmed checks that a node lost nothing and started no stage again.
func unharmed(t *testing.T, n *node.Node) {
	t.Helper()
	status, err := n.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range status.Pipelines {
		for _, s := range p.Stages {
			if s.Lost > 0 || s.Restarts > 0 {
				t.Errorf("%s lost %d and was started again %d times (%s): %+v", s.Address, s.Lost, s.Restarts, s.LastError, s.Statistics)
			}
		}
	}
}

// statistic is a number of a stage's own; of several peers, their sum.
func statistic(n *node.Node, stage, name string) (sum uint64, err error) {
	s, err := n.Stage(stage)
	if err != nil {
		return 0, err
	}
	found := false
	for _, v := range s.Statistics {
		if v.Name == name {
			sum, found = sum+v.Value, true
		}
	}
	if !found {
		return 0, errors.New(stage + " has no statistic " + name)
	}
	return sum, nil
}
