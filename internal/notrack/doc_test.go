package notrack

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
)

// TestDocumentation keeps the example of docs/wire.md true.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "## An example")
	parts := strings.Split(example, "```")
	if len(parts) < 3 {
		t.Fatal("no example")
	}
	tcp, gre := newFlow(flow.TCP, 40001, 5001), newFlow(flow.GRE, 7, 8)
	tcp.State, tcp.Present, tcp.Status = 3, tcp.Present|flow.HasState, 0x19e
	tcp.Original = tuple("10.71.1.2", "10.71.2.2", 40001, 5001)
	tcp.Reply = tuple("10.71.2.2", "10.71.2.100", 5001, 50123)
	gre.Original = tuple("10.71.1.2", "10.71.2.2", 7, 8)
	gre.Reply = gre.Original.Inverted(flow.GRE)
	const id = 0x1122334455667788
	p := NewPacker(Room(1500, false), NewSequencer(0x60000000))
	p.SetReplay(id)
	for _, e := range []*flow.Event{&tcp, &gre} {
		group, err := NewEncoder(Settings{}).AppendFlow(nil, e)
		if err != nil || !p.Append(group) {
			t.Fatal(err)
		}
	}
	p.Append(AppendSync(nil, id, flow.SyncEnd, flow.Sync{Count: 2}))
	p.Flush()
	if want, got := hex.EncodeToString(p.Datagram(0)), strings.Join(strings.Fields(parts[1]), ""); got != want {
		t.Errorf("docs/wire.md has\n%s\nthe code makes\n%s", got, want)
	}
}
