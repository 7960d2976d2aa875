package conntrackdcli

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/core/control"
)

// The lines were compared with conntrackd's by test/interop, which needs a
// kernel; here they stand for those who change the code without one.
func TestEntries(t *testing.T) {
	for _, c := range []struct{ json, internal, external, xml string }{
		{
			`{"family":"ipv4","protocol":"tcp","protocol_number":6,"state":"ESTABLISHED","timeout":300,"zone":7,"mark":5,"id":9,
			  "original":{"source":"10.1.0.2","destination":"10.2.0.2","source_port":1004,"destination_port":80},
			  "reply":{"source":"10.2.0.2","destination":"10.3.0.1","source_port":80,"destination_port":5000},
			  "status":["SEEN_REPLY","ASSURED"],"helper":"f<p","age":1,"active":3}`,
			"tcp      6 ESTABLISHED src=10.1.0.2 dst=10.2.0.2 sport=1004 dport=80 src=10.2.0.2 dst=10.3.0.1 sport=80 dport=5000 [ASSURED] mark=5 zone=7 helper=f<p [active since 3s]",
			"tcp      6 ESTABLISHED src=10.1.0.2 dst=10.2.0.2 sport=1004 dport=80 [ASSURED] mark=5 zone=7 helper=f<p [active since 3s]",
			`<flow><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>10.1.0.2</src><dst>10.2.0.2</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>1004</sport><dport>80</dport></layer4></meta>` +
				`<meta direction="reply"><layer3 protonum="2" protoname="ipv4"><src>10.2.0.2</src><dst>10.3.0.1</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>80</sport><dport>5000</dport></layer4></meta>` +
				`<meta direction="independent"><state>ESTABLISHED</state><mark>5</mark><zone>7</zone><id>9</id><assured/></meta><helper>f&lt;p</helper></flow>`,
		},
		{
			`{"family":"ipv6","protocol":"icmpv6","protocol_number":58,"zone":0,"status":["CONFIRMED"],
			  "original":{"source":"fd00::1","destination":"fd00::2","icmp_type":128,"icmp_code":0,"icmp_id":77},
			  "reply":{"source":"fd00::2","destination":"fd00::1","icmp_type":129,"icmp_code":0,"icmp_id":77},"active":0}`,
			"icmpv6   58 src=fd00::1 dst=fd00::2 type=128 code=0 id=77 [UNREPLIED] src=fd00::2 dst=fd00::1 type=129 code=0 id=77 [active since 0s]",
			"icmpv6   58 src=fd00::1 dst=fd00::2 type=128 code=0 id=77 [UNREPLIED] [active since 0s]",
			`<flow><meta direction="original"><layer3 protonum="10" protoname="ipv6"><src>fd00::1</src><dst>fd00::2</dst></layer3><layer4 protonum="58" protoname="icmpv6"></layer4></meta>` +
				`<meta direction="reply"><layer3 protonum="10" protoname="ipv6"><src>fd00::2</src><dst>fd00::1</dst></layer3><layer4 protonum="58" protoname="icmpv6"></layer4></meta>` +
				`<meta direction="independent"><unreplied/></meta></flow>`,
		},
		{
			`{"family":"ipv4","protocol":"esp","protocol_number":50,"zone":0,"status":[],
			  "original":{"source":"10.1.0.2","destination":"10.2.0.2"},"active":0}`,
			"unknown  50 src=10.1.0.2 dst=10.2.0.2 [UNREPLIED] [active since 0s]",
			"unknown  50 src=10.1.0.2 dst=10.2.0.2 [UNREPLIED] [active since 0s]",
			`<flow><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>10.1.0.2</src><dst>10.2.0.2</dst></layer3><layer4 protonum="50" protoname="unknown"></layer4></meta>` +
				`<meta direction="reply"><layer3 protonum="0" protoname="unknown"><src></src><dst></dst></layer3><layer4 protonum="0" protoname="unknown"></layer4></meta>` +
				`<meta direction="independent"><unreplied/></meta></flow>`,
		},
		{
			`{"family":"ipv4","protocol":"tcp","protocol_number":6,"zone":0,"helper":"ftp","expectation":{"flags":["PERMANENT"],"class":0},
			  "original":{"source":"10.2.0.9","destination":"10.1.0.1","source_port":0,"destination_port":4000},
			  "mask":{"source":"255.255.255.255","destination":"255.255.255.255","source_port":0,"destination_port":65535},
			  "master":{"protocol":"tcp","zone":0,"source":"10.1.0.1","destination":"10.2.0.9","source_port":41844,"destination_port":21},"active":4}`,
			"proto=6 src=10.2.0.9 dst=10.1.0.1 sport=0 dport=4000 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.1.0.1 master-dst=10.2.0.9 sport=41844 dport=21 PERMANENT class=0 helper=ftp [active since 4s]",
			"proto=6 src=10.2.0.9 dst=10.1.0.1 sport=0 dport=4000 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.1.0.1 master-dst=10.2.0.9 sport=41844 dport=21 PERMANENT class=0 helper=ftp [active since 4s]",
			`<flow><layer3 protonum="2" protoname="ipv4"><expected><src>10.2.0.9</src><dst>10.1.0.1</dst></expected><mask><src>255.255.255.255</src><dst>255.255.255.255</dst></mask><master><src>10.1.0.1</src><dst>10.2.0.9</dst></master></layer3>` +
				`<layer4 protonum="6" protoname="tcp"><expected><sport>0</sport><dport>4000</dport></expected><mask><sport>0</sport><dport>65535</dport></mask><master><sport>41844</sport><dport>21</dport></master></layer4>` +
				`<meta><helper-name>ftp</helper-name><class>0</class></meta></flow>`,
		},
	} {
		var e Entry
		if err := json.Unmarshal([]byte(c.json), &e); err != nil {
			t.Fatal(err)
		}
		for _, line := range []struct{ want, got string }{
			{c.internal, string(e.AppendText(nil, false))},
			{c.external, string(e.AppendText(nil, true))},
			{c.xml, string(e.AppendXML(nil, false))},
		} {
			if diff := cmp.Diff(line.want+"\n", line.got); diff != "" {
				t.Error(diff)
			}
		}
	}
}

// Statistics come from the stages that have them.
func TestStatistics(t *testing.T) {
	stage := func(kind string, in, out uint64, values ...any) control.StageStatus {
		s := control.StageStatus{Kind: kind, EventsIn: in, EventsOut: out, Restarts: 1}
		for i := 0; i < len(values); i += 2 {
			s.Statistics = append(s.Statistics, control.Statistic{Name: values[i].(string), Value: uint64(values[i+1].(int))})
		}
		return s
	}
	start := time.Unix(1e9, 0)
	n := node{setup: Setup{Sync: true, InternalCache: true, ExternalCache: true, Links: []Link{{"multicast", "eth2"}, {"multicast", "eth3"}}}, states: []string{"RUNNING", "NO-CARRIER"}}
	n.Status = &control.Status{Started: start, Pipelines: []control.PipelineStatus{
		{Name: "local", Stages: []control.StageStatus{
			stage("source", 0, 7, "events_new", 4, "events_update", 2, "events_destroy", 1, "receive_buffer_bytes", 4096, "overruns", 3, "replays", 2),
			stage("filter", 7, 5),
			stage("cache", 5, 5, "flows", 11, "inserted", 12, "updated", 13, "destroyed", 14, "swept", 1, "refused", 15, "expectations", 16),
			stage("sink", 5, 0, "bytes_sent", 17, "datagrams_sent", 18, "datagrams_lost", 19),
		}},
		{Name: "peers", Stages: []control.StageStatus{
			stage("source", 0, 7, "bytes_received", 21, "datagrams_received", 22, "receive_errors", 23, "malformed", 24, "messages_lost", 25, "messages_lost", 1),
			stage("cache", 5, 5, "flows", 31, "destroys_ignored", 32),
		}},
	}}
	for which, lines := range map[string][]string{
		"": {
			"cache internal:\ncurrent active connections:\t          11\nconnections created:\t\t          12\tfailed:\t          15\n",
			"connections destroyed:\t\t          15\tfailed:\t           0\n",
			"cache external:\ncurrent active connections:\t          31\n",
			"multicast traffic (active device=eth2):\n                  17 Bytes sent                   21 Bytes recv\n",
			"                  24 Malformed msgs                   26 Lost msgs\n",
		},
		"expect":  {"cache internal:\ncurrent active connections:\t          16\n"},
		"cache":   {"cache:internal\tactive objects:\t\t          11\n", "\t\tno space left in cache:\t          15\n"},
		"runtime": {"daemon uptime: 1 day 2 h 3 min\n", "\tevents received:\t                   7\n\tevents filtered:\t                   2\n", "\tchild process failed:\t\t           6\n"},
		"network": {"\t\tPackets lost:\t\t                  26\n"},
		"link":    {"multicast traffic device=eth2 status=RUNNING role=ACTIVE:\n", "multicast traffic device=eth3 status=NO-CARRIER role=BACKUP:\n"},
	} {
		got := string(n.appendStatistics(nil, which, start.Add(26*time.Hour+3*time.Minute)))
		for _, line := range lines {
			if !strings.Contains(got, line) {
				t.Errorf("-s %s: no %q in\n%s", which, line, got)
			}
		}
	}
}
