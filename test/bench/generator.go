package main

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A generator makes TCP connections through the firewall by packet sockets,
// without any TCP of a kernel at the ends: the load is the firewall's alone.
// Packets come one by one, as they do from many hosts: each connection has a
// round trip and a life of its own, so events are spread and come in no bursts
// that would make either system look cheaper than it is.
type generator struct {
	client, server port
	target         netip.AddrPort
	next           int // the first connection that was never used

	sent map[int]time.Time // if not nil: when each connection's first packet was sent
}

// A port is a packet socket on one interface, and who sends to whom there.
type port struct {
	fd       int
	from, to net.HardwareAddr
}

// Bounds of a connection's round trip, and of how long it stays open.
const (
	minTrip, maxTrip = 200 * time.Microsecond, 2 * time.Millisecond
	minLife, maxLife = 20 * time.Millisecond, 200 * time.Millisecond
)

// A packet is one that is to be sent.
type packet struct {
	due  time.Duration // after the begin
	i    int           // of which connection
	step int
}

// packets is a heap: the first is due first.
type packets []packet

func (p packets) Len() int           { return len(p) }
func (p packets) Less(i, j int) bool { return p[i].due < p[j].due }
func (p packets) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)        { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	last := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return last
}

// Connect makes n connections, rate a second, to their ends and returns how
// long the last SYN came after the first. A machine that can't keep up makes
// them later, never fewer.
func (g *generator) Connect(n, rate int) (elapsed time.Duration, err error) {
	done := make(chan struct{})
	go func() { // a thread of its own, on one CPU, so that packets keep their order
		defer close(done)
		runtime.LockOSThread()
		elapsed, err = g.connect(n, rate)
	}()
	<-done
	return elapsed, err
}

func (g *generator) connect(n, rate int) (elapsed time.Duration, err error) {
	if err := pin(); err != nil {
		return 0, err
	}
	random := rand.New(rand.NewPCG(1, uint64(g.next)))
	between := func(from, to time.Duration) time.Duration { return from + time.Duration(random.Int64N(int64(to-from))) }
	first, end := g.next, g.next+n
	g.next = end
	queue := packets{{i: first}}
	begin := time.Now()
	for len(queue) > 0 {
		p := heap.Pop(&queue).(packet)
		await(begin.Add(p.due))
		if err := g.send(p.step, p.i); err != nil {
			return 0, err
		}
		now := time.Since(begin)
		switch p.step {
		case stepSYN:
			if p.i+1 < end {
				heap.Push(&queue, packet{due: time.Duration(p.i+1-first) * time.Second / time.Duration(rate), i: p.i + 1})
			}
			elapsed = now
		case stepLast:
			continue
		}
		p.step++
		p.due = now + between(minTrip, maxTrip)/2
		if p.step == stepFIN {
			p.due = now + between(minLife, maxLife)
		}
		heap.Push(&queue, p)
	}
	return elapsed, nil
}

// pin keeps the calling thread on one CPU, so that packets keep their order. It
// has the ordinary priority, as the kernel's own threads that process packets
// have: what is real-time comes before it.
func pin() error {
	var one unix.CPUSet
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("bench: pin the generator: %w", err)
	}
	return nil
}

// await sleeps until a point in time. It is some 60 µs late; what has become due
// by then goes out at once, as a card moderates its interrupts.
func await(at time.Time) {
	for {
		wait := time.Until(at)
		if wait <= 0 {
			return
		}
		timeout := unix.NsecToTimespec(wait.Nanoseconds())
		_, _, _ = unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, 0, uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
	}
}

// send sends the packet of one step of connection i.
func (g *generator) send(step, i int) error {
	out := &g.client
	if segments[step].fromServer {
		out = &g.server
	}
	var frame [frameSize]byte
	writeFrame(frame[:], step, i, out.from, out.to, g.target)
	if g.sent != nil && step == stepSYN {
		g.sent[i] = time.Now()
	}
	for {
		_, err := unix.Write(out.fd, frame[:])
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("bench: send a packet: %w", err)
		}
	}
}

// openPort opens a packet socket; call it inside the namespace.
func openPort(device string, to net.HardwareAddr) (port, error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return port{}, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // protocol 0: receives nothing
	if err != nil {
		return port{}, fmt.Errorf("bench: packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
		unix.Close(fd)
		return port{}, fmt.Errorf("bench: bind to %s: %w", device, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		unix.Close(fd)
		return port{}, fmt.Errorf("bench: bypass the queue of %s: %w", device, err)
	}
	return port{fd: fd, from: link.HardwareAddr, to: to}, nil
}

func (g *generator) Close() error {
	return errors.Join(unix.Close(g.client.fd), unix.Close(g.server.fd))
}
