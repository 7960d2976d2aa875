package interop
import ("testing";"time"
	"github.com/sluice-project/sluice/internal/testbed"
)
func TestDebug(t *testing.T) {
	s := newSite(t)
	n := s.sluice(t, s.FW1, map[string]string{"kernel": "commit_timeout = \"180s\"\n    purge_timeout = \"1s\""})
	d := s.conntrackd(t, s.FW2, testbed.ConntrackdConfig{PurgeTimeout: 1})
	transfers := s.downloads(t)
	b:=time.Now()
	testbed.Eventually(t, patience, know(d.External, transfers))
	t.Log(time.Since(b), transfers[0].Moved())
	primary(t, d, s.FW2)
	t.Log(time.Since(b), transfers[0].Moved())
	if err := s.MoveTo(s.FW2); err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(b), transfers[0].Moved())
	background(func() error { _, err := n.Sluice("role", "backup"); return err })
	for range 10 {
	p,_ := n.Table("peers")
	t.Log(time.Since(b), len(p), len(p.Where(func(f testbed.Flow) bool {return f.TCP==testbed.Established})),  transfers[0].Moved())
	time.Sleep(100*time.Millisecond)
	}
	t.Log(d.Output())
}
