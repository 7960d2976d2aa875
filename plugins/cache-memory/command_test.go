package cachememory

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

func (r *rig) command(name string, args ...string) string {
	r.t.Helper()
	return r.answer(plugin.Command{Name: name, Args: args})
}

func (r *rig) answer(c plugin.Command) string {
	r.t.Helper()
	var out strings.Builder
	if err := r.cache.Command(context.Background(), c, &out); err != nil {
		r.t.Fatal(err)
	}
	r.check()
	return out.String()
}

func TestDump(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 1))
	r.feed(fromA, added(2, 2))
	r.feed(own, added(3, 3))
	tuples := func(port string) string {
		return "src=10.0.0.1 dst=10.0.0.2 sport=" + port + " dport=443 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=443 dport=" + port
	}
	want := "tcp      6 300 ESTABLISHED " + tuples("1") + " mark=1\n" +
		"tcp      6 300 ESTABLISHED " + tuples("2") + " mark=2 owner=192.168.100.1\n" +
		"tcp      6 300 ESTABLISHED " + tuples("3") + " mark=3 [FOREIGN]\n"
	if got := r.command("dump"); got != want {
		t.Errorf("\n%s\nnot\n%s", got, want)
	}
	r.now += 7
	lines := strings.Split(strings.TrimSpace(r.answer(plugin.Command{Name: "dump", JSON: true})), "\n")
	var got struct {
		Protocol, Owner string
		Mark, Age       uint32
	}
	if err := json.Unmarshal([]byte(lines[1]), &got); err != nil || len(lines) != 3 {
		t.Fatalf("%d lines: %v", len(lines), err)
	}
	if got.Protocol != "tcp" || got.Owner != "192.168.100.1" || got.Mark != 2 || got.Age != 7 {
		t.Errorf("%+v", got)
	}
}

func TestDumpFilter(t *testing.T) {
	r := newRig(t)
	udp := added(2, 2)
	udp.Protocol, udp.Zone, udp.Present = flow.UDP, 5, udp.Present&^flow.HasState
	closing := added(3, 3)
	closing.State = flow.TCPTimeWait
	r.feed(live, added(1, 1), udp, closing)
	r.feed(fromA, added(4, 4))
	for args, want := range map[string]int{
		"": 4, "protocol=tcp": 3, "protocol=17": 1, "state=established": 2, "state=TIME_WAIT protocol=tcp": 1, "zone=5": 1,
		"mark=0x3": 1, "owner=192.168.100.1": 1, "source=10.0.0.1": 4, "source=10.0.0.0/8": 4, "source=10.1.0.0/16": 0,
		"destination=10.0.0.2": 4, "destination=10.0.0.1": 0, "family=ipv4": 4, "family=IPv6": 0,
	} {
		if got := strings.Count(r.command("dump", strings.Fields(args)...), "\n"); got != want {
			t.Errorf("%s: %d flows, not %d", args, got, want)
		}
	}
	for args, want := range map[string]string{
		"protocol=tpc":      "dump: protocol=tpc: unknown protocol",
		"state=ESTABLISHD":  `did you mean "ESTABLISHED"`,
		"colour=red":        `"colour=red" chooses nothing: known are destination=, family=,`,
		"tcp":               `"tcp" chooses nothing`,
		"source=nowhere":    "source=nowhere: ParseAddr",
		"source=10.0.0.0/x": "source=10.0.0.0/x: netip.ParsePrefix",
		"mark=many":         "mark=many: ",
		"family=ipx":        `"ipx" is no family`,
	} {
		err := r.cache.Command(context.Background(), plugin.Command{Name: "dump", Args: strings.Fields(args)}, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, not %s", args, err, want)
		}
	}
	if err := r.cache.Command(context.Background(), plugin.Command{Name: "fly"}, nil); err == nil {
		t.Error("an unknown command was carried out")
	}
}

// TestDumpPassesABlockedOutput: the administrator sees what is wrong even while
// the stage below takes no data.
func TestDumpPassesABlockedOutput(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 1))
	r.out.block = make(chan struct{})
	applied := make(chan struct{})
	go func() {
		var b flow.Builder
		b.Reset(live)
		e := added(2, 1)
		b.Append(&e)
		batch, _ := flow.DecodeBatch(b.Bytes())
		if err := r.cache.apply(&batch, r.out); err != nil {
			t.Error(err)
		}
		close(applied)
	}()
	for strings.Count(r.answerQuietly("dump"), "\n") < 2 { // until it is in the table
	}
	r.cache.Statistics()
	r.answerQuietly("stats")
	select {
	case <-applied:
		t.Error("the output was not blocked")
	default:
	}
	close(r.out.block)
	<-applied
}

func (r *rig) answerQuietly(name string) string {
	var out strings.Builder
	if err := r.cache.Command(context.Background(), plugin.Command{Name: name}, &out); err != nil {
		r.t.Error(err)
	}
	return out.String()
}

func TestFlush(t *testing.T) {
	r := newRig(t)
	for key := range uint16(3000) {
		r.feed(live, added(key, 1))
	}
	r.out.sent = nil
	if got := r.answer(plugin.Command{Name: "flush", JSON: true}); got != "{\"flows\":3000}\n" {
		t.Error(got)
	}
	r.expect() // no DESTROY
	r.holds()
	if n := r.cache.core.bytes(); n != 0 {
		t.Errorf("%d bytes are left", n)
	}
	r.feed(live, updated(1, 2))
	r.expect("new 1=2")
	if got := r.command("flush"); got != "flows                        1\n" {
		t.Error(got)
	}
}

// TestFlushDuringReplay: tombstones outlive a flush.
func TestFlushDuringReplay(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 1), added(2, 1))
	r.feed(during(live, 5), begin(0))
	r.feed(live, ended(1))
	r.command("flush")
	r.feed(during(live, 5), updated(1, 1), updated(2, 1), end(0, 2))
	r.holds("2=1")
}

func TestStats(t *testing.T) {
	r := newRig(t)
	udp := added(2, 2)
	udp.Protocol = flow.UDP
	r.feed(live, added(1, 1), udp)
	r.feed(fromA, added(3, 3))
	r.feed(own, added(4, 3))
	r.feed(live, awaited(21, 1))
	want := map[string]int{
		"expectations": 1, "flows": 4, "protocol tcp": 3, "protocol udp": 1, "state tcp ESTABLISHED": 3, "owner 192.168.100.1": 1, "foreign": 1, "limit": defaultLimit,
	}
	got := map[string]int{}
	if err := json.Unmarshal([]byte(r.answer(plugin.Command{Name: "stats", JSON: true})), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%s: %d, not %d", name, got[name], n)
		}
	}
	values := map[string]uint64{}
	for _, s := range r.cache.Statistics() {
		values[s.Name+s.Peer] = s.Value
	}
	if values["flows"] != 4 || values["flows_foreign"] != 1 || values["inserted"] != 4 || values["peer_flows192.168.100.1"] != 1 {
		t.Errorf("%v", values)
	}
}

func TestConfig(t *testing.T) {
	c := Definition.Config().(*Config)
	if d := plugin.Decode([]byte(`{"limit":65535,"hold":true}`), c); len(d) > 0 {
		t.Fatal(d)
	}
	if c.Limit != 65535 || !c.Hold || c.ReplayRate != defaultReplayRate || !c.Traits().Hold {
		t.Errorf("%+v", c)
	}
	for block, want := range map[string]string{
		`{"limit":0}`:         "[limit]: Bad limit",
		`{"limit":999999999}`: "[limit]: Bad limit",
		`{"limit":-1}`:        "[limit]: Number out of range",
	} {
		if d := plugin.Decode([]byte(block), Definition.Config()); len(d) != 1 || !strings.HasPrefix(d.Error(), want) {
			t.Errorf("%s: %v", block, d)
		}
	}
}
