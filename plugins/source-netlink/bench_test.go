package sourcenetlink

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/internal/testbed"
)

// What an event costs the stage's process, user and system, at a steady
// 30,000 a second.
func BenchmarkEvent(b *testing.B) {
	const perMillisecond = 30
	n := testbed.MustNamespace(b, "fw")
	s := startStage(b, n, `{"buffer_size": "8MiB"}`, &stagepb.StartRequest{})
	go func() {
		buf := make([]byte, flow.MaxBatch+1)
		for {
			if n, err := unix.Read(s.edge, buf); n <= 0 || err != nil && err != unix.EINTR {
				return
			}
		}
	}()
	w := mustWriter(b, n, 0)
	create(b, w, 0, 1000)
	pid := s.plugin.ReattachConfig().Pid
	before, err := testbed.CPUTime(pid)
	if err != nil {
		b.Fatal(err)
	}
	next, sent := time.Now(), 0
	for b.Loop() {
		if err := w.Shorten(testFlow(sent%1000), 600); err != nil {
			b.Fatal(err)
		}
		if sent++; sent%perMillisecond == 0 {
			if err := w.Flush(); err != nil {
				b.Fatal(err)
			}
			next = next.Add(time.Millisecond)
			time.Sleep(time.Until(next))
		}
	}
	after, err := testbed.CPUTime(pid)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64((after-before).Nanoseconds())/float64(sent), "cpu-ns/event")
	b.ReportMetric(float64(s.statistic("overruns")), "overruns")
}
