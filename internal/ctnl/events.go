package ctnl

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/wait"
)

// ErrOverrun says that the kernel had more events than the receive buffer
// holds: some were lost. Those that are queued can still be read, and must be,
// for until the queue is empty nothing new enters it.
var ErrOverrun = errors.New("events lost: receive buffer overrun")

const (
	// vectorLength is how many events one system call reads at most, and
	// slotSize the room for each. The kernel's longest event known is 320
	// bytes; a longer one than a slot is cut and will not decode.
	vectorLength = 256
	slotSize     = 1024
)

// An EventsConfig says how to open Events.
type EventsConfig struct {
	// Buffer is the size of the receive buffer in bytes, as getsockopt shows
	// it. An event takes 1280 of them. Setting more than net.core.rmem_max
	// needs CAP_NET_ADMIN. 0 keeps the kernel's default, 166 events' worth.
	Buffer int

	// Unreliable lets the kernel forget events that do not fit. By default it
	// keeps DESTROY events back until they do and merges the others into the
	// flow's next (NETLINK_BROADCAST_ERROR); no packet is dropped either way.
	Unreliable bool

	// DropPorts are netlink port ids: the kernel drops the events of changes
	// that these sockets ask for, and they take no room in the buffer.
	DropPorts []uint32

	// Screens say which flows' events the kernel is to drop in the same way. What
	// it does not judge it passes: expectations, and see Unjudged.
	Screens []flow.Screen

	// Expectations has the kernel report expectations too, in their order among
	// the flows' events.
	Expectations bool
}

// Events receives the kernel's events. One goroutine calls its methods, but for
// Wake, HearNew and Drops, which any may call.
type Events struct {
	socket   *socket
	unjudged string
	wake     int // eventfd

	slots   []byte
	iovecs  []unix.Iovec
	headers []mmsghdr
	poll    [2]unix.PollFd
	only    [1]unix.PollFd // the eventfd alone
	loop    wait.Loop
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// OpenEvents subscribes to NEW, UPDATE and DESTROY events in the calling
// thread's network namespace. The kernel reports nothing of flows that began
// while nobody listened (nf_conntrack_events=2, its default), so it comes
// before everything else, and the table is dumped after it.
func OpenEvents(c EventsConfig) (*Events, error) {
	var unjudged string
	s, err := dial(0, func(conn *netlink.Conn) error {
		if err := conn.SetOption(netlink.BroadcastError, !c.Unreliable); err != nil {
			return err
		}
		var err error
		if unjudged, err = attachFilter(conn, &c); err != nil {
			return fmt.Errorf("filter: %w", err)
		}
		for _, group := range c.groups() {
			if err := conn.JoinGroup(group); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("conntrack events: %w", err)
	}
	e := &Events{socket: s, unjudged: unjudged}
	if c.Buffer > 0 {
		_, err = setReceiveBuffer(s.fd, c.Buffer)
	}
	if err == nil {
		e.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("conntrack events: %w", err)
	}
	e.prepareVector()
	return e, nil
}

// groups returns the multicast groups to join. Nothing is ever sent to
// NFNLGRP_CONNTRACK_EXP_UPDATE, yet.
func (c *EventsConfig) groups() []uint32 {
	groups := []uint32{unix.NFNLGRP_CONNTRACK_NEW, unix.NFNLGRP_CONNTRACK_UPDATE, unix.NFNLGRP_CONNTRACK_DESTROY}
	if c.Expectations {
		groups = append(groups, unix.NFNLGRP_CONNTRACK_EXP_NEW, unix.NFNLGRP_CONNTRACK_EXP_UPDATE, unix.NFNLGRP_CONNTRACK_EXP_DESTROY)
	}
	return groups
}

// prepareVector points the vector of recvmmsg at slots, once and for all.
func (e *Events) prepareVector() {
	e.slots = make([]byte, vectorLength*slotSize)
	e.iovecs = make([]unix.Iovec, vectorLength)
	e.headers = make([]mmsghdr, vectorLength)
	for i := range e.headers {
		e.iovecs[i].Base = &e.slots[i*slotSize]
		e.iovecs[i].SetLen(slotSize)
		e.headers[i].header.Iov = &e.iovecs[i]
		e.headers[i].header.SetIovlen(1)
	}
	e.poll[0] = unix.PollFd{Fd: int32(e.socket.fd), Events: unix.POLLIN}
	e.poll[1] = unix.PollFd{Fd: int32(e.wake), Events: unix.POLLIN}
	e.only[0] = e.poll[1]
}

// Wait blocks until there are events, an overrun to be told of, Wake was called
// since the last Wait or Pause, or d is over, and may return early. It blocks the
// thread, not the runtime's poller.
func (e *Events) Wait(d time.Duration) error {
	_, err := e.loop.Descriptors(e.poll[:], d)
	e.takeWake(e.poll[1].Revents)
	return err
}

// Pause blocks for d, or until Wake is called, whatever arrives.
func (e *Events) Pause(d time.Duration) error {
	_, err := e.loop.Pause(e.only[:], d)
	e.takeWake(e.only[0].Revents)
	return err
}

func (e *Events) takeWake(revents int16) {
	if revents&unix.POLLIN != 0 {
		var b [8]byte
		_, _ = unix.Read(e.wake, b[:])
	}
}

// Wake ends one Wait or Pause: the one that blocks, or the next.
func (e *Events) Wake() {
	_, _ = unix.Write(e.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// Read reads the events that are queued, at most one vector of them, without
// waiting, and returns how many. 0 means that none is left. Each is at Message
// until the next Read. It returns ErrOverrun when events were lost; the queued
// ones are read by the next calls.
func (e *Events) Read() (n int, err error) {
	for {
		// Raw: it takes some 0.3 ms and never waits.
		r, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(e.socket.fd),
			uintptr(unsafe.Pointer(&e.headers[0])), vectorLength, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, nil
		case unix.ENOBUFS:
			return 0, ErrOverrun
		default:
			return 0, fmt.Errorf("conntrack events: read: %w", errno)
		}
	}
}

// Full says whether the last Read filled its vector with its n events, so that
// there are probably more.
func (e *Events) Full(n int) bool { return n == vectorLength }

// Message returns event i of the last Read, a whole netlink message, cut if it
// was longer than any that is known.
func (e *Events) Message(i int) []byte {
	at := i * slotSize
	return e.slots[at : at+int(e.headers[i].length)]
}

// HearNew says whether the kernel is to report flows that begin. An event that
// nobody hears isn't made at all, and one that a filter drops is: to make them is
// nearly half of what it costs the kernel to be given flows.
func (e *Events) HearNew(hear bool) error {
	option := unix.NETLINK_DROP_MEMBERSHIP
	if hear {
		option = unix.NETLINK_ADD_MEMBERSHIP
	}
	if err := unix.SetsockoptInt(e.socket.fd, unix.SOL_NETLINK, option, unix.NFNLGRP_CONNTRACK_NEW); err != nil {
		return fmt.Errorf("conntrack events: hear of new flows (%v): %w", hear, err)
	}
	return nil
}

// Buffer returns the receive buffer's size in bytes as getsockopt shows it.
func (e *Events) Buffer() (int, error) { return receiveBuffer(e.socket.fd) }

// Grow doubles the receive buffer, up to max bytes, and returns its size and
// whether it grew.
func (e *Events) Grow(max int) (size int, grew bool, err error) {
	before, err := receiveBuffer(e.socket.fd)
	if err != nil || before >= max {
		return before, false, err
	}
	size, err = setReceiveBuffer(e.socket.fd, min(2*before, max))
	return size, size > before, err
}

// Unjudged names what of the screens the kernel does not judge, because it would
// be too much for it: "IPv6 addresses", "addresses", or "" for nothing.
func (e *Events) Unjudged() string { return e.unjudged }

// Port returns the socket's port id.
func (e *Events) Port() uint32 { return e.socket.port }

// Drops returns how many messages the kernel could not queue on this socket
// since it was opened, those that came again later included.
func (e *Events) Drops() (uint64, error) {
	// /proc/net would show the namespace of the process's first thread.
	table, err := os.ReadFile("/proc/thread-self/net/netlink")
	if err != nil {
		return 0, fmt.Errorf("conntrack events: read drops: %w", err)
	}
	return dropsOf(string(table), e.socket.port)
}

// dropsOf finds a netfilter socket's row. The columns are sk, Eth (protocol),
// Pid (port id), Groups, Rmem, Wmem, Dump, Locks, Drops, Inode.
func dropsOf(table string, port uint32) (uint64, error) {
	id := strconv.FormatUint(uint64(port), 10)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) >= 9 && f[1] == strconv.Itoa(unix.NETLINK_NETFILTER) && f[2] == id {
			return strconv.ParseUint(f[8], 10, 64)
		}
	}
	return 0, errors.New("conntrack events: read drops: the socket is not listed")
}

// Close ends the subscription.
func (e *Events) Close() error {
	return errors.Join(e.socket.close(), unix.Close(e.wake))
}
