package plugin

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

// edgeReader in the environment makes a process of this test the stage below an
// edge, which it finds as descriptor 3.
const edgeReader = "SLUICE_TEST_EDGE_READER"

func TestMain(m *testing.M) {
	if os.Getenv(edgeReader) != "" {
		if err := readEdge(3); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// readEdge reads and decodes batches to the end, as a stage does.
func readEdge(fd int) error {
	in, err := newInput(fd)
	if err != nil {
		return err
	}
	var e flow.Event
	for {
		p, err := in.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		batch, err := flow.DecodeBatch(p)
		if err != nil {
			return err
		}
		for c := batch.Cursor(); c.Next(&e); {
		}
	}
}

// below starts a process that reads the edge whose other end it returns.
func below(b *testing.B) (*exec.Cmd, *Output) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[1]), "edge")
	defer file.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), edgeReader+"=1")
	cmd.ExtraFiles, cmd.Stderr = []*os.File{file}, os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return cmd, newOutput([]uint32{uint32(fds[0])}, 1, testHost())
}

// endEdge ends the edge and returns the CPU time of the process below.
func endEdge(b *testing.B, cmd *exec.Cmd, out *Output) time.Duration {
	unix.Close(out.edges[0].fd)
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// usedHere is the CPU time of this process.
func usedHere(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkEdge hands batches of 120 events to another process, which decodes
// them; ns/op is per batch. "flood" is as fast as the edge takes them. "paced" is
// one every 2 ms, as coalescing makes them, thus with a wake-up each; its CPU is
// what counts. The CPU of the process below has what its start took, some ms,
// which -benchtime=5s makes small.
func BenchmarkEdge(b *testing.B) {
	const events, interval = 120, 2 * time.Millisecond
	for _, c := range []struct {
		name  string
		pause func(until time.Time)
	}{
		{"flood", func(time.Time) {}},
		{"paced", func(until time.Time) { time.Sleep(time.Until(until)) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			cmd, out := below(b)
			var batch flow.Builder
			batch.Reset(flow.Header{})
			for n := range uint32(events) {
				batch.Append(event(n))
			}
			b.ReportAllocs()
			before, next := usedHere(b), time.Now()
			for b.Loop() {
				if err := out.Send(&batch); err != nil {
					b.Fatal(err)
				}
				next = next.Add(interval)
				c.pause(next)
			}
			above := usedHere(b) - before
			total := above + endEdge(b, cmd, out)
			sent := float64(b.N * events)
			b.ReportMetric(sent/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(above.Nanoseconds())/float64(b.N), "ns-CPU-above/batch")
			b.ReportMetric(float64(total.Nanoseconds())/sent, "ns-CPU/event")
		})
	}
}
