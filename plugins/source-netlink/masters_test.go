package sourcenetlink

import (
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/internal/testbed"
)

// A helper that writes a longer address moves the sequence numbers of the
// control connection, of which the kernel tells nobody: the source does.
func TestMasterWhoseSequenceNumbersMoveIsSentAgain(t *testing.T) {
	bed := testbed.MustSingle(t, testbed.FirewallConfig{SNAT: true, Rules: testbed.FTPRules})
	s := startStage(t, bed.FW.Namespace, `{"expectations": true}`, &stagepb.StartRequest{})
	testbed.MustFTPServer(t, bed.Server)
	session := bed.Client.MustFTP(t, testbed.ServerAddr.V6.Addr()) // written at full length
	if err := session.Active(); err != nil {
		t.Fatal(err)
	}
	all := s.readUntil(func(a arrival) bool { return a.Kind == flow.Update && a.Tail.Has(flow.AttrSeqAdj) })
	last := all[len(all)-1]
	if last.Original.SourcePort != session.Local().Port() || last.Origin != flow.Kernel || last.Status&flow.SeqAdjusted == 0 {
		t.Errorf("not the control connection: %v", &last.Event)
	}
}

// It is this node's news, even if the last event read before was of an injection.
func TestMasterThatIsSentAgainIsNoOwnEvent(t *testing.T) {
	bed := testbed.MustSingle(t, testbed.FirewallConfig{SNAT: true, Rules: testbed.FTPRules})
	w := mustWriter(t, bed.FW.Namespace, ownPort)
	s := startStage(t, bed.FW.Namespace, `{"expectations": true}`, &stagepb.StartRequest{OwnPortIds: []uint32{ownPort}})
	testbed.MustFTPServer(t, bed.Server)
	session := bed.Client.MustFTP(t, testbed.ServerAddr.V6.Addr())
	// The stage reads all that follows at once.
	pid := s.plugin.ReattachConfig().Pid
	if err := testbed.Freeze(pid); err != nil {
		t.Fatal(err)
	}
	if err := session.Active(); err != nil {
		t.Fatal(err)
	}
	create(t, w, 0, 1)
	if err := testbed.Thaw(pid); err != nil {
		t.Fatal(err)
	}
	all := s.readUntil(func(a arrival) bool { return a.Kind == flow.Update && a.Tail.Has(flow.AttrSeqAdj) })
	if last := all[len(all)-1]; last.Origin != flow.Kernel {
		t.Errorf("origin %v", last.Origin)
	}
}
