package interop
import ("testing";"time"
	"github.com/sluice-project/sluice/internal/testbed"
)
func TestExplore(t *testing.T) {
	b:=time.Now()
	s := newSite(t)
	t.Log("site", time.Since(b))
	d := s.conntrackd(t, s.FW2, testbed.ConntrackdConfig{})
	t.Log("conntrackd", time.Since(b))
	s.sluice(t, s.FW1, nil)
	t.Log("sluice", time.Since(b))
	s.traffic(t)
	t.Log("traffic", time.Since(b))
	time.Sleep(time.Second)
	k := s.FW1.MustTable(t)
	t.Log(len(k), "\n"+k.String())
	e,err := d.External()
	if err!=nil {t.Fatal(err)}
	t.Log(testbed.Printed.Diff(k,e))
	t.Log(d.MustCtl(t,"-s","network"))
	t.Log(d.MustCtl(t,"-s","cache"))
	t.Log(d.MustCtl(t,"-s"))
	t.Log(d.MustCtl(t,"-c"))
	time.Sleep(time.Second)
	t.Log(testbed.Diff(k,s.FW2.MustTable(t)))
	t.Log(d.Output())
	out,_ := s.FW2.Run("conntrack","-L")
	t.Log(out)
}
