package testbed

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Ending is how the client ends a connection.
type Ending int

// The ways to end.
const (
	Orderly  Ending = iota // FIN both ways: the flow ends in TIME_WAIT
	Reset                  // RST by the client: the flow ends in CLOSE
	LeftOpen               // not at all; see Connections
)

// Churn describes many short connections from a namespace to a Server.
type Churn struct {
	// To is the server.
	To netip.AddrPort
	// Sources are the client's addresses, used in turn. None lets the kernel
	// choose; more than 25,000 connections within a minute need several, since
	// TIME_WAIT keeps ports.
	Sources []netip.Addr
	// Count is how many connections to make.
	Count int
	// Concurrency is how many at once; 0 is 8.
	Concurrency int
	// Rate bounds the connections a second; 0 is as fast as possible.
	Rate int
	// Payload is how many bytes go each way on each connection; 0 is none, so
	// that a connection is six packets.
	Payload int
	// Ending is how each connection ends, unless Endings is given: then
	// connection i ends as Endings(i) says.
	Ending  Ending
	Endings func(i int) Ending
	// Timeout bounds each step of a connection; 0 is 10 s.
	Timeout time.Duration
}

// ChurnResult tells what became of a Churn or of UDP flows.
type ChurnResult struct {
	// Done and Failed add up to the count, unless the context ended earlier.
	Done, Failed int
	// Err is the first failure.
	Err error
	// Elapsed is the time from first to last.
	Elapsed time.Duration
	// Open holds the connections that were left open; close it in the end.
	Open *Connections
}

// Churn makes the connections and returns when all have ended, failed or been
// left open. It returns an error if not a single attempt could be made; single
// failures are counted in the result.
func (n *Namespace) Churn(ctx context.Context, c Churn) (*ChurnResult, error) {
	if c.Timeout == 0 {
		c.Timeout = shortWait
	}
	crowd := crowd{count: c.Count, workers: c.Concurrency, rate: c.Rate}
	return crowd.run(ctx, n, func(i int) (int, error) { return c.connect(i) })
}

// MustChurn is Churn for tests: it fails the test if one connection fails, and
// closes those left open when the test ends.
func (n *Namespace) MustChurn(t TB, c Churn) *ChurnResult {
	t.Helper()
	result, err := n.Churn(context.Background(), c)
	if err == nil {
		t.Cleanup(func() { result.Open.Close(Orderly) })
		err = result.Check()
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	return result
}

// Check is an error unless everything succeeded.
func (r *ChurnResult) Check() error {
	if r.Failed == 0 {
		return nil
	}
	return fmt.Errorf("testbed: %d of %d connections failed, first: %w", r.Failed, r.Failed+r.Done, r.Err)
}

// Connections are TCP connections that are open. Each takes a descriptor here
// and, if the Server is in the same process, another there; mind RLIMIT_NOFILE,
// whose hard limit even root may lack the capability to raise.
type Connections struct {
	mu   sync.Mutex
	open []socket
}

// Len is how many are open.
func (c *Connections) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// Close ends all of them.
func (c *Connections) Close(ending Ending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.open {
		_ = s.end(ending)
	}
	c.open = nil
}

func (c *Connections) add(s socket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = append(c.open, s)
}

// connect makes connection i; a descriptor other than -1 was left open.
func (c *Churn) connect(i int) (int, error) {
	var source netip.Addr
	if len(c.Sources) > 0 {
		source = c.Sources[i%len(c.Sources)]
	}
	s, err := connectStream(netip.AddrPortFrom(source, 0), c.To, c.Timeout)
	if err != nil {
		return -1, err
	}
	if c.Payload > 0 {
		if err := s.echo(append([]byte("ECHO\n"), make([]byte, c.Payload)...), c.Payload); err != nil {
			return -1, errors.Join(err, s.end(Reset))
		}
	}
	ending := c.Ending
	if c.Endings != nil {
		ending = c.Endings(i)
	}
	if ending == LeftOpen {
		return int(s), nil
	}
	return -1, s.end(ending)
}

// crowd runs attempts on a bounded number of threads inside a namespace. A
// thread with blocking sockets costs a fraction of what the poller does, and
// the load must not take the processor from what is being measured.
type crowd struct{ count, workers, rate int }

func (c crowd) run(ctx context.Context, n *Namespace, attempt func(i int) (int, error)) (*ChurnResult, error) {
	tally := &tally{result: ChurnResult{Open: &Connections{}}}
	jobs := make(chan int)
	workers := c.workers
	if workers == 0 {
		workers = 8
	}
	var wait sync.WaitGroup
	for range min(workers, max(c.count, 1)) {
		wait.Add(1)
		n.thread(func() {
			defer wait.Done()
			for i := range jobs {
				tally.add(attempt(i))
			}
		}, func(err error) {
			defer wait.Done()
			for range jobs {
				tally.add(-1, err)
			}
		})
	}
	begin := time.Now()
	c.hand(ctx, jobs)
	close(jobs)
	wait.Wait()
	tally.result.Elapsed = time.Since(begin)
	if tally.result.Done == 0 && tally.result.Err != nil {
		return nil, fmt.Errorf("testbed: no connection succeeded: %w", tally.result.Err)
	}
	return &tally.result, nil
}

// hand gives out the numbers, at the rate if there is one.
func (c crowd) hand(ctx context.Context, jobs chan<- int) {
	pace := newPacer(c.rate)
	for i := range c.count {
		pace.wait(1)
		select {
		case jobs <- i:
		case <-ctx.Done():
			return
		}
	}
}

// tally adds up what workers report.
type tally struct {
	mu     sync.Mutex
	result ChurnResult
}

func (t *tally) add(open int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		t.result.Done++
	case t.result.Err == nil:
		t.result.Err = err
		fallthrough
	default:
		t.result.Failed++
	}
	if open >= 0 {
		t.result.Open.add(socket(open))
	}
}

// pacer spreads events evenly over time.
type pacer struct {
	rate  int
	start time.Time
	given int
}

func newPacer(rate int) *pacer { return &pacer{rate: rate, start: time.Now()} }

// wait sleeps until the next n events are due.
func (p *pacer) wait(n int) {
	if p.rate == 0 {
		return
	}
	due := p.start.Add(time.Duration(float64(p.given) / float64(p.rate) * float64(time.Second)))
	p.given += n
	if ahead := time.Until(due); ahead > time.Millisecond { // shorter sleeps only cost
		time.Sleep(ahead)
	}
}
