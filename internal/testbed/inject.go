package testbed

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// injectBatch is how many requests go into one send: the kernel handles them
// all before the send returns, and more than 64 gain nothing.
const injectBatch = 64

// synthPerHost is how many ports each synthetic source address uses.
const synthPerHost = 60000

// Synthetic describes a series of conntrack entries that no packet made: flow i
// is always the same. Its zero value are established TCP flows over IPv4.
type Synthetic struct {
	// UDP makes UDP flows instead of TCP ones.
	UDP bool
	// IPv6 uses fd72::/16 instead of 10.72.0.0/16 and 10.73.0.0/16.
	IPv6 bool
	// SNAT, if valid, is the address that all sources are translated to. The
	// kernel takes about three times as long for these.
	SNAT netip.Addr
	// Timeout is in seconds; 0 is 3600.
	Timeout uint32
	// Mark is the connection mark of all of them.
	Mark uint32
	// Zone is the conntrack zone of all of them.
	Zone uint16
}

// Flow is flow i as Table would tell it, but for its timeout and its TCP flags.
func (s Synthetic) Flow(i int) Flow {
	host := i/synthPerHost + 1
	source, target := synthAddr(72, host, s.IPv6), synthAddr(73, host, s.IPv6)
	sport, dport := uint16(1024+i%synthPerHost), uint16(443)
	f := Flow{
		Key:     Key{Proto: unix.IPPROTO_TCP, Orig: Tuple{Src: source, Dst: target, SrcPort: sport, DstPort: dport}, Zone: s.Zone},
		Reply:   Tuple{Src: target, Dst: source, SrcPort: dport, DstPort: sport},
		Status:  StatusConfirmed | StatusSeenReply | StatusAssured,
		Timeout: s.timeout(),
		Mark:    s.Mark,
		TCP:     Established,
	}
	if s.UDP {
		f.Proto, f.TCP = unix.IPPROTO_UDP, NoTCPState
	} else {
		f.TCPWindow = [2]uint8{7, 7}
	}
	if s.SNAT.IsValid() {
		f.Reply.Dst = s.SNAT
		f.Status |= StatusSrcNAT | StatusNATDone
	}
	return f
}

// Table is the flows from to to-1 as Flow gives them.
func (s Synthetic) Table(from, to int) Table {
	table := make(Table, to-from)
	for i := from; i < to; i++ {
		table.Add(s.Flow(i))
	}
	return table
}

func (s Synthetic) timeout() uint32 {
	if s.Timeout == 0 {
		return 3600
	}
	return s.Timeout
}

// synthAddr is 10.net.x.y or fd72:net::x:y; host counts from 1.
func synthAddr(network byte, host int, v6 bool) netip.Addr {
	if !v6 {
		return netip.AddrFrom4([4]byte{10, network, byte(host >> 8), byte(host)})
	}
	addr := [16]byte{0xfd, 0x72, 0, network}
	addr[14], addr[15] = byte(host>>8), byte(host)
	return netip.AddrFrom16(addr)
}

// Injector creates, refreshes and deletes synthetic entries over ctnetlink,
// hundreds of thousands a second. It has an encoder of its own. It must be used
// by one goroutine at a time.
type Injector struct {
	// Rate bounds the entries a second of each call; 0 is as fast as possible.
	Rate int

	shape    Synthetic
	fd       int
	sequence uint32
	buffer   []byte
}

// NewInjector opens an injector for a namespace; the caller must Close it. For
// the entries to be consulted by packets, the namespace must track connections.
func NewInjector(n *Namespace, shape Synthetic) (*Injector, error) {
	j := &Injector{shape: shape, buffer: make([]byte, 0, 32<<10)}
	err := n.Do(func() (err error) {
		j.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	if err == nil {
		err = unix.SetsockoptInt(j.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	}
	if err != nil {
		return nil, fmt.Errorf("testbed: %s: injector: %w", n, err)
	}
	return j, nil
}

// Inject creates the first count flows of a series in the namespace.
func (n *Namespace) Inject(count int, shape Synthetic) error {
	j, err := NewInjector(n, shape)
	if err != nil {
		return err
	}
	return errors.Join(j.Create(0, count), j.Close())
}

// MustInject is Inject for tests.
func (n *Namespace) MustInject(t TB, count int, shape Synthetic) {
	t.Helper()
	if err := n.Inject(count, shape); err != nil {
		t.Fatalf("%v", err)
	}
}

// Close closes the injector's socket. The entries stay.
func (j *Injector) Close() error { return unix.Close(j.fd) }

// Create makes the flows from to to-1; one that is there already is an error.
// Each is a NEW event to those who listen.
func (j *Injector) Create(from, to int) error {
	return j.each(from, to, func(f Flow) {
		j.request(ctNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, f, true)
	})
}

// Touch sets the timeout of flows that exist. Each is an UPDATE event.
func (j *Injector) Touch(from, to int) error {
	return j.each(from, to, func(f Flow) { j.request(ctNew, 0, f, false) })
}

// Delete deletes the flows. Each is a DESTROY event.
func (j *Injector) Delete(from, to int) error {
	return j.each(from, to, func(f Flow) { j.request(ctDelete, 0, f, false) })
}

// each encodes a request a flow and sends them by the batch.
func (j *Injector) each(from, to int, encode func(Flow)) error {
	pace := newPacer(j.Rate)
	for from < to {
		end := min(from+injectBatch, to)
		j.buffer = j.buffer[:0]
		first := j.sequence + 1
		for i := from; i < end; i++ {
			j.sequence++
			encode(j.shape.Flow(i))
		}
		pace.wait(end - from)
		if err := j.send(first, from); err != nil {
			return fmt.Errorf("testbed: inject: %w", err)
		}
		from = end
	}
	return nil
}

// send sends the batch and reads the errors it caused; the kernel has answered
// by the time send returns, and with nothing if all went well.
func (j *Injector) send(first uint32, index int) error {
	if err := unix.Sendto(j.fd, j.buffer, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	answer := make([]byte, 4096)
	var failures []error
	for {
		n, _, err := unix.Recvfrom(j.fd, answer, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return errors.Join(failures...)
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		sequence, errno := netlinkError(answer[:n])
		if errno != 0 && len(failures) < 3 {
			flow := j.shape.Flow(index + int(sequence-first))
			failures = append(failures, fmt.Errorf("%s: %w", flow, errno))
		}
	}
}
