package testbed

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ConntrackdConfig is the part of conntrackd's configuration that tests vary, in
// NOTRACK mode. The zero value but for Address is the usual one: IPv4 multicast
// on SyncLink, caches on, all protocols, remaining timeouts replicated.
type ConntrackdConfig struct {
	// Address is the daemon's own on the link. IPv6 makes it use an IPv6 group.
	Address netip.Addr
	// Link is the interface; "" is SyncLink.
	Link string
	// Group and Port are where it sends; zero is 225.0.0.50 (or ff15::50) and 3780.
	Group netip.Addr
	Port  int
	// Transport is Multicast (or ""), UDP or TCP; Peer is where it sends over the
	// latter two.
	Transport string
	Peer      netip.Addr
	// More are redundant links; the first one is the default then.
	More []ConntrackdLink
	// NoChecksum leaves the UDP checksum out.
	NoChecksum bool

	// CommitTimeout is in seconds; 0 leaves it out, and flows are committed with
	// the time that they had left.
	CommitTimeout int
	// PurgeTimeout is in seconds; 0 leaves it out (60).
	PurgeTimeout int
	// DisableExternalCache commits what peers send at once.
	DisableExternalCache bool
	// DisableInternalCache sends kernel events as they come.
	DisableInternalCache bool
	// StartupResync asks the peers for everything at start.
	StartupResync bool

	// TCPWindowTracking replicates window scales instead of being liberal.
	TCPWindowTracking bool
	// ExpectationSync replicates expectations.
	ExpectationSync bool

	// Protocols are those to replicate, in conntrackd's capitals; none is all.
	Protocols []string
	// Ignore are addresses whose flows are not replicated.
	Ignore []netip.Addr
	// States are the TCP states to replicate, such as ESTABLISHED; none is all.
	States []string

	// HashLimit is the most entries of a cache; 0 is 524288.
	HashLimit int
	// Normal gives the daemon the ordinary scheduler after its start, instead of
	// the real-time one that it chooses, so that costs can be compared fairly.
	Normal bool
}

// ConntrackdLink is a redundant link of conntrackd, as ConntrackdConfig says.
type ConntrackdLink struct {
	Link                 string
	Address, Group, Peer netip.Addr
	Port                 int
}

// text is the configuration file, with all paths in dir.
func (c ConntrackdConfig) text(dir string) string {
	var b block
	b.open("Sync")
	b.open("Mode NOTRACK")
	b.number("CommitTimeout", c.CommitTimeout)
	b.number("PurgeTimeout", c.PurgeTimeout)
	b.yes("DisableExternalCache", c.DisableExternalCache)
	b.yes("DisableInternalCache", c.DisableInternalCache)
	b.yes("StartupResync", c.StartupResync)
	b.shut()
	c.transport(&b)
	b.open("Options")
	b.yes("TCPWindowTracking", c.TCPWindowTracking)
	if c.ExpectationSync {
		b.line("ExpectationSync on")
	}
	b.shut()
	b.shut()
	c.general(&b, dir)
	return b.String()
}

func (c ConntrackdConfig) transport(b *block) {
	title := c.Transport
	if title == "" {
		title = "Multicast"
	}
	checksum := "on"
	if c.NoChecksum {
		checksum = "off"
	}
	for i, link := range append([]ConntrackdLink{{c.Link, c.Address, c.Group, c.Peer, c.Port}}, c.More...) {
		if i == 0 && len(c.More) > 0 {
			b.open(title + " Default")
		} else {
			b.open(title)
		}
		link.place(b, title)
		b.line("SndSocketBuffer %d", 4<<20)
		b.line("RcvSocketBuffer %d", 4<<20)
		b.line("Checksum %s", checksum)
		b.shut()
	}
}

// place writes where a link is.
func (l ConntrackdLink) place(b *block, transport string) {
	family, group := "IPv4", netip.MustParseAddr("225.0.0.50")
	if l.Address.Is6() {
		family, group = "IPv6", netip.MustParseAddr("ff15::50")
	}
	if l.Group.IsValid() {
		group = l.Group
	}
	device, port := l.Link, l.Port
	if device == "" {
		device = SyncLink
	}
	if port == 0 {
		port = 3780
	}
	if transport == "Multicast" {
		b.line("%s_address %s", family, group)
		b.line("Group %d", port)
		if l.Address.Is4() { // over IPv6 the interface alone decides
			b.line("IPv4_interface %s", l.Address)
		}
	} else {
		b.line("%s_address %s", family, l.Address)
		b.line("%s_Destination_Address %s", family, l.Peer)
		b.line("Port %d", port)
	}
	b.line("Interface %s", device)
}

func (c ConntrackdConfig) general(b *block, dir string) {
	limit := c.HashLimit
	if limit == 0 {
		limit = 1 << 19
	}
	b.open("General")
	b.line("HashSize %d", 32768)
	b.line("HashLimit %d", limit)
	b.line("LogFile off") // in the foreground it writes to standard output
	b.line("Syslog off")
	b.line("LockFile %s", filepath.Join(dir, "lock"))
	b.open("UNIX")
	b.line("Path %s", filepath.Join(dir, "ctl"))
	b.shut()
	b.line("NetlinkBufferSize %d", 2<<20)
	b.line("NetlinkBufferSizeMaxGrowth %d", 8<<20)
	c.filter(b)
	b.shut()
}

func (c ConntrackdConfig) filter(b *block) {
	if len(c.Protocols)+len(c.Ignore)+len(c.States) == 0 {
		return
	}
	b.open("Filter From Userspace")
	if len(c.Protocols) > 0 {
		b.open("Protocol Accept")
		b.line("%s", strings.Join(c.Protocols, " "))
		b.shut()
	}
	if len(c.Ignore) > 0 {
		b.open("Address Ignore")
		for _, addr := range c.Ignore {
			family := "IPv4"
			if addr.Is6() {
				family = "IPv6"
			}
			b.line("%s_address %s", family, addr)
		}
		b.shut()
	}
	if len(c.States) > 0 {
		b.open("State Accept")
		b.line("%s for TCP", strings.Join(c.States, " "))
		b.shut()
	}
	b.shut()
}

// block writes nested sections.
type block struct {
	strings.Builder
	depth int
}

func (b *block) line(format string, args ...any) {
	b.WriteString(strings.Repeat("\t", b.depth))
	fmt.Fprintf(b, format+"\n", args...)
}

func (b *block) open(title string) {
	b.line("%s {", title)
	b.depth++
}

func (b *block) shut() {
	b.depth--
	b.line("}")
}

func (b *block) number(name string, value int) {
	if value != 0 {
		b.line("%s %d", name, value)
	}
}

func (b *block) yes(name string, set bool) {
	if set {
		b.line("%s yes", name)
	}
}

// normalScheduler takes a process off the real-time scheduler.
func normalScheduler(pid int) error {
	err := unix.SchedSetAttr(pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0)
	if err != nil {
		return fmt.Errorf("testbed: scheduler of %d: %w", pid, err)
	}
	return nil
}
