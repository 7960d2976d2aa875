package conntrackdconf

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"github.com/sluice-project/sluice/core/flow"
)

const (
	maxBuffer    = math.MaxInt32 - 1 // bytes of a socket's buffer
	maxLimit     = 1 << 27           // flows of a cache
	maxInterface = 15                // bytes of an interface's name (linux/if.h, IFNAMSIZ)

	defaultBuffer    = 2 << 20 // buffer_size of source "netlink"
	defaultBufferMax = 8 << 20 // its buffer_size_max
)

type conversion = func(*converter, *Node)

// Conversions of directives that only have another name here. The first
// address gets the comments.

func ranged(least, most uint64, addresses ...string) conversion {
	return func(c *converter, n *Node) {
		v, _ := strconv.ParseUint(n.arg(), 10, 64)
		if v < least || v > most {
			c.fail(n, "Number out of range", "Sluice takes %d to %d here. Correct the number.", least, most)
		}
		c.all(n, cty.NumberUIntVal(v), addresses)
	}
}

func seconds(addresses ...string) conversion {
	return func(c *converter, n *Node) { c.all(n, duration(c, n), addresses) }
}

func toggle(addresses ...string) conversion {
	return func(c *converter, n *Node) { c.all(n, cty.BoolVal(on(n.arg())), addresses) }
}

func text(addresses ...string) conversion {
	return func(c *converter, n *Node) { c.all(n, cty.StringVal(n.arg()), addresses) }
}

func (c *converter) all(n *Node, value cty.Value, addresses []string) {
	if c.repeats(n) {
		return
	}
	c.set(n, c.here(n, addresses[0]), value)
	for _, a := range addresses[1:] {
		c.also(c.here(n, a), value)
	}
}

// duration returns a number of seconds as the text of a duration.
func duration(c *converter, n *Node) cty.Value {
	if v, _ := strconv.ParseUint(n.arg(), 10, 64); v > math.MaxInt32 {
		c.fail(n, "Number out of range", "Sluice takes 0 to %d seconds here. Correct the number.", math.MaxInt32)
	}
	return cty.StringVal(n.arg() + "s")
}

// unneeded keeps a directive as a comment whose absence changes nothing.
func unneeded(address, why, instead string) conversion {
	return func(c *converter, n *Node) {
		c.keep(n, address, "not needed: "+why)
		c.note(n, "Not needed: "+n.Name.Text, "%s %s", sentence(why), instead)
	}
}

// missing keeps a directive as a comment that Sluice has nothing for.
func missing(address, why, instead string) conversion {
	return func(c *converter, n *Node) {
		c.keep(n, address, "no counterpart: "+why)
		c.miss(n, why, instead)
	}
}

// children converts what stands in a block. Its comments go above one address,
// those at its end above another.
func children(above, end string) conversion {
	return func(c *converter, n *Node) {
		c.about(n, above)
		for _, inner := range n.Body {
			inner.row.convert(c, inner)
		}
		c.comment(end, n.Inner...)
	}
}

func (c *converter) sync(n *Node) {
	children("local", "peers.end")(c, n)
	if c.active == nil {
		c.fail(n, "No link", "The section names no link between the nodes. Add a `Multicast { }`, or remove the section.")
	}
	if n.find("Mode") == nil {
		c.lost++
		c.note(n, "No counterpart: Sync without Mode", "Without a Mode this is FTFW. Sluice speaks NOTRACK: change all nodes together.")
	}
}

func (c *converter) mode(n *Node) {
	children("peers.sink", "peers.sink.end")(c, n)
	if name := strings.ToUpper(n.arg()); name != "NOTRACK" {
		c.comment("peers.sink", Comment{Text: "# Mode " + n.arg() + " (no counterpart: Sluice speaks NOTRACK)", Gap: true})
		c.lost++
		c.note(n, "No counterpart: Mode "+n.arg(), "Sluice speaks NOTRACK, and repairs losses by replays. Nodes of the mode %s don't understand it: change all nodes together.", name)
	}
}

func (c *converter) options(n *Node) {
	children("peers.sink.tcp_window_tracking", "peers.sink.end")(c, n)
}

func (c *converter) commitTimeout(n *Node) {
	if c.noExternalCache {
		unneeded("peers.sink.end", "it is ignored together with DisableExternalCache", "Flows live as long as at the peer.")(c, n)
		return
	}
	c.set(n, "peers.sink.commit_timeout", duration(c, n))
}

func (c *converter) scheduler(n *Node) {
	children("runner.scheduler", "runner.scheduler.end")(c, n)
	c.standard("runner.scheduler.type", cty.StringVal("rr"), "conntrackd's default")
	c.standard("runner.scheduler.priority", cty.NumberIntVal(99), "conntrackd's default")
}

func (c *converter) schedulerType(n *Node) {
	name := strings.ToLower(n.arg())
	if name != "rr" && name != "fifo" {
		c.fail(n, "Unknown scheduler", "There is no real-time scheduler %q. Write RR or FIFO.", n.arg())
	}
	c.set(n, "runner.scheduler.type", cty.StringVal(name))
}

func (c *converter) internalCache(n *Node) {
	why := ""
	if c.noInternalCache {
		why = "this pipeline has no cache"
	}
	c.keep(n, "local.sink", why)
}

func (c *converter) externalCache(n *Node) {
	why := ""
	if c.noExternalCache {
		why = "the cache does not hold"
	}
	c.keep(n, "peers.cache", why)
}

// link converts a link. What conntrackd refuses is refused: links of several
// kinds, and too many of them.
func (c *converter) link(n *Node) {
	i := slices.Index(c.links, n)
	switch {
	case i < 0:
		c.fail(n, "Links of several kinds", "%s does not go together with %s. Choose one kind.", n.Name.Text, c.active.Name.Text)
		return
	case i >= maxLinks:
		c.fail(n, "Too many links", "There can be %d. Remove one.", maxLinks)
		return
	}
	above, end := "local.sink", "local.sink.end"
	if len(c.links) > 1 {
		above, end = "local.sink."+linkID(i), "local.sink."+linkID(i)+".end"
		if n == c.active {
			c.also("local.sink."+linkID(i)+".default", cty.True)
			c.also("peers.source."+linkID(i)+".default", cty.True)
		}
	}
	children(above, end)(c, n)
	if n.find("Interface") == nil {
		c.fail(n, "No interface", "Sluice must know the link's interface. Add `Interface NAME` to this section.")
	}
	if n.Name.Text == "Multicast" {
		if n.find("IPv4_address", "IPv6_address") == nil {
			c.fail(n, "No group", "The section does not say which group the nodes are in. Add `IPv4_address 225.0.0.50`, or what the others have.")
		}
		return
	}
	c.unicast(n)
}

// unicast checks a link to one peer.
func (c *converter) unicast(n *Node) {
	kind := strings.ToLower(n.Name.Text)
	c.slot("local.sink").header = []string{"sink", kind}
	c.slot("peers.source").header = []string{"source", kind}
	peer := n.find("IPv4_Destination_Address", "IPv6_Destination_Address")
	if peer == nil {
		c.fail(n, "No peer", "The section does not say where the other node is. Add `IPv4_Destination_Address ADDRESS`.")
		return
	}
	if own := n.find("IPv4_address", "IPv6_address"); own != nil && own.Name.Text[:4] != peer.Name.Text[:4] {
		c.fail(own, "Wrong address family", "%s can't send to %s: both must be IPv4, or both IPv6.", own.arg(), peer.arg())
	}
}

func (c *converter) group(n *Node) {
	a, _ := netip.ParseAddr(n.arg())
	if !a.IsMulticast() {
		c.fail(n, "No multicast group", "%v is no multicast address: write one as 225.0.0.50 or ff15::50.", a)
	}
	if sender := c.linkOf(n).find("IPv4_interface"); sender != nil && !a.Is4() {
		c.fail(sender, "Wrong address family", "An IPv4 address can't send to the group %v. Remove the line.", a)
	}
	c.all(n, cty.StringVal(n.arg()), []string{"local.sink.group", "peers.source.group"})
}

func (c *converter) device(n *Node) {
	if len(n.arg()) > maxInterface {
		c.fail(n, "Bad interface name", "An interface's name has at most %d characters. Correct it.", maxInterface)
	}
	c.all(n, cty.StringVal(n.arg()), []string{"local.sink.interface", "peers.source.interface"})
}

// linkOf returns the link that a directive stands in.
func (c *converter) linkOf(n *Node) *Node {
	for _, link := range c.links {
		if slices.Contains(link.Body, n) {
			return link
		}
	}
	return c.active
}

func (c *converter) destination(n *Node) {
	address := c.here(n, "local.sink.destination")
	s := c.slot(address)
	if old := s.setBy; old != nil {
		c.fail(n, "Two peers", "A link of conntrackd has one peer; line %d names one already. Remove one.", old.Name.Range.Start.Line)
	}
	c.comment(address, n.Before...)
	s.list, s.setBy, s.after = []element{{value: n.arg()}}, n, trailing(n)
}

func (c *converter) checksum(n *Node) {
	if c.active != nil && c.active.Name.Text == "TCP" {
		unneeded("local.sink.end", "TCP always has checksums", "Nothing is to be done.")(c, n)
		return
	}
	toggle("local.sink.checksum")(c, n)
}

func (c *converter) expectations(n *Node) {
	const address = "local.source.expectations"
	switch {
	case !n.Block && on(n.arg()):
		c.set(n, address, cty.True)
	case !n.Block || len(n.Body) == 0:
		c.keep(n, "peers.sink.end", "")
	default:
		s := c.slot(address)
		c.comment(address, n.Before...)
		for _, helper := range n.Body {
			s.list = append(s.list, element{helper.Before, helper.Name.Text, trailing(helper)})
		}
		s.tail = append(s.tail, n.Inner...)
		s.after = trailing(n)
	}
}

func (c *converter) systemd(n *Node) {
	if !on(n.arg()) {
		unneeded("runner.end", "systemd is told what it asks for", "A service with Type=simple does not ask.")(c, n)
		return
	}
	unneeded("runner.end", "systemd is told what it asks for", "Write Type=notify into the unit; WatchdogSec= is honoured.")(c, n)
}

func (c *converter) limit(n *Node) {
	v, _ := strconv.ParseUint(n.arg(), 10, 64)
	if v < 1 || v > maxLimit {
		c.fail(n, "Number out of range", "Sluice takes 1 to %d flows here. Correct the number, or remove the line.", maxLimit)
	}
	addresses := []string{"local.cache.limit", "peers.cache.limit"}
	if c.noInternalCache {
		addresses = addresses[1:]
	}
	if c.collects {
		addresses = append(addresses, "stats.cache.limit")
	}
	if !c.synchronizes {
		addresses = []string{"stats.cache.limit"}
	}
	c.all(n, cty.NumberUIntVal(v), addresses)
}

func (c *converter) logFile(n *Node) {
	switch word := n.arg(); {
	case strings.HasPrefix(word, "/"):
		c.set(n, "runner.log.file", cty.StringVal(word))
	case on(word):
		c.set(n, "runner.log.file", cty.StringVal("/var/log/conntrackd.log"))
	default:
		c.keep(n, "runner.log.file", "the log goes to standard error")
	}
}

func (c *converter) syslog(n *Node) {
	switch word := n.arg(); {
	case on(word):
		c.set(n, "runner.log.syslog", cty.StringVal("daemon"))
	case fits("FACILITY", word):
		c.set(n, "runner.log.syslog", cty.StringVal(word))
	default:
		c.keep(n, "runner.log.syslog", "")
	}
}

func (c *converter) overrunResync(n *Node) {
	const address = "local.source.overrun_resync"
	switch word := n.arg(); {
	case fits("SECONDS", word):
		c.set(n, address, duration(c, n))
	case on(word):
		c.set(n, address, cty.StringVal("30s"))
	default:
		c.set(n, address, cty.StringVal("none"))
	}
}

func (c *converter) poll(n *Node) {
	c.set(n, "local.source.poll", duration(c, n))
	c.miss(n, "Sluice reads the table beside the events, not instead of them",
		"Nothing is to be done: it is more exact, and costs more on a busy machine. Filters and `coalesce` make it cheaper.")
}

func (c *converter) filter(n *Node) {
	children("local.filter", "local.filter.end")(c, n)
	if len(n.Args) == 2 && n.Args[1].Text == "Kernelspace" {
		c.standard("local.source.kernel_filter", cty.True, "Filter From Kernelspace")
	}
}

// list converts a set of a filter, whose address is that of the block. value
// returns an element's value, or false if it has none.
func (c *converter) list(n *Node, set string, value func(*Node) (string, bool)) {
	name, other := "accept", "ignore"
	if n.arg() == "Ignore" {
		name, other = other, name
	}
	if len(n.Body) == 0 {
		c.empty(n, set)
		return
	}
	c.about(n, set)
	s := c.slot(set + "." + name)
	var before []Comment
	for _, item := range n.Body {
		before = append(before, item.Before...)
		if v, ok := value(item); ok {
			s.list = append(s.list, element{before, v, trailing(item)})
			before = nil
		} else if last := len(s.list) - 1; last >= 0 && len(item.After) > 0 {
			s.list[last].after = strings.TrimSpace(s.list[last].after + " " + trailing(item))
		}
	}
	s.tail = append(s.tail, before...)
	s.tail = append(s.tail, n.Inner...)
	if len(c.slot(set+"."+other).list) > 0 {
		c.fail(n, "Both Accept and Ignore", "There is a %s of the other kind already, and only one of them can be meant. Keep one.", n.Name.Text)
	}
}

// empty keeps a set without values as a comment.
func (c *converter) empty(n *Node, set string) {
	if n.arg() == "Ignore" {
		unneeded(set, "it names nothing", "Everything passes.")(c, n)
		return
	}
	missing(set, "it names nothing, so nothing would pass", "Name what is to be accepted, or remove it.")(c, n)
}

func (c *converter) protocols(n *Node) {
	c.list(n, "local.filter.protocol", func(item *Node) (string, bool) {
		name := strings.ToLower(item.Name.Text)
		if name == "ipv6-icmp" {
			name = "icmpv6"
		}
		if _, err := flow.ParseProtocol(name); err != nil {
			c.fail(item, "Unknown protocol", "Sluice does not know %q by name. Take it out here, and write its number into the result.", item.Name.Text)
		}
		return name, true
	})
}

func (c *converter) addresses(n *Node) {
	c.list(n, "local.filter.address", func(item *Node) (string, bool) { return item.arg(), true })
}

func (c *converter) states(n *Node) {
	if !c.synchronizes {
		unneeded("stats.filter", "the end of a flow passes in any state", "Nothing is to be done.")(c, n)
		return
	}
	c.list(n, "local.state.state", func(item *Node) (string, bool) {
		return item.Name.Text, item.Name.Text != "for" && item.Name.Text != "TCP"
	})
	if len(n.Body) > 0 {
		c.standard("local.state.name", cty.StringVal("state"), "")
	}
}

// finish adds what a file does not say: blocks that there always are, and
// conntrackd's defaults where Sluice's are others.
func (c *converter) finish() {
	const theirs = "conntrackd's default"
	if !c.synchronizes && !c.collects {
		c.notes = append(c.notes, nothing(c.file))
		return
	}
	c.standard("runner.lock_file", cty.StringVal("/var/lock/conntrack.lock"), theirs)
	// With a Scheduler, that has written both.
	c.standard("runner.scheduler.type", cty.StringVal("rr"), theirs)
	c.standard("runner.scheduler.priority", cty.NumberIntVal(1), "conntrackd takes 99; 1 comes before all that is not real-time")
	if !c.slot("local.source.overrun_resync").wanted {
		c.standard("local.source.overrun_resync", cty.StringVal("30s"), theirs)
	}
	if c.collects {
		c.finishStats()
	}
	if c.synchronizes {
		c.finishSync(theirs)
	}
}

// finishSync adds what the pipelines that replicate need.
func (c *converter) finishSync(theirs string) {
	c.want("local.source", "local.sink", "peers.source", "peers.cache", "peers.sink")
	if !c.noInternalCache {
		c.want("local.cache")
	}
	c.standard("local.source.reliable", cty.False, theirs)
	c.standard("peers.source.request_resync", cty.False, theirs)
	c.standard("peers.sink.purge_timeout", cty.StringVal("60s"), theirs)
	c.also("peers.sink.scope", cty.StringVal("local"))
	if c.noExternalCache {
		c.standard("local.source.coalesce", cty.StringVal("0s"), "nothing waits, since packets may take either firewall")
		c.standard("peers.source.coalesce", cty.StringVal("0s"), "as above")
	} else {
		c.standard("peers.cache.hold", cty.True, "the external cache: `sluice role primary` commits it")
	}
	c.bounds("local.source")
}

// bounds sees to it that a receive buffer does not begin above its maximum,
// where the file says only one of the two.
func (c *converter) bounds(source string) {
	size, most := c.slot(source+".buffer_size"), c.slot(source+".buffer_size_max")
	given := func(s *slot, standard int64) (cty.Value, bool) {
		if s.value == cty.NilVal {
			return cty.NumberIntVal(standard), false
		}
		return s.value, true
	}
	a, hasSize := given(size, defaultBuffer)
	b, hasMost := given(most, defaultBufferMax)
	switch {
	case a.LessThanOrEqualTo(b).True():
	case !hasMost:
		c.standard(source+".buffer_size_max", a, "no less than buffer_size")
	case !hasSize:
		c.standard(source+".buffer_size", b, "no more than buffer_size_max")
	default:
		c.note(most.setBy, "Maximum below the size", "The buffer begins with more than it may grow to. It begins with the larger number, and does not grow.")
		most.before = append(most.before, Comment{Text: "# " + most.setBy.String() + " (less than the buffer begins with)", Gap: true})
		most.value = a
	}
}
