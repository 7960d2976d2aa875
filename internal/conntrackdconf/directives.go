package conntrackdconf

import (
	"slices"
	"strings"
)

// A row is what is known about a directive.
type row struct {
	sections []string // where it may stand; "" is the top of the file
	syntax   syntax
	to       string // what it becomes: attributes and blocks, by address
	remark   string // for the documentation
	convert  func(*converter, *Node)
}

// Kinds of sections that several rows share.
const (
	anyLink    = "Sync/Multicast Sync/UDP Sync/TCP"
	unicast    = "Sync/UDP Sync/TCP"
	general    = "General"
	mode       = "Sync/Mode"
	filterSets = "General/Filter"
)

// table has one row for each directive of conntrackd.conf. It is all that the
// package knows of them: the parser reads what the syntax says, the converter
// calls convert, and the table of docs/migration.md is made of the rest.
//
// The columns: the sections in which the directive may stand; its syntax (see
// the type); what it becomes, where "local" and "peers" are the pipelines that
// Convert writes; a remark; the conversion. Rows without a conversion stand in
// blocks that have no counterpart as a whole.
//
// Addresses in conversions are those of the layout in layout.go.
var table = []row{
	{at(""), newSyntax("Sync { }"), "both pipelines", "", (*converter).sync},
	{at("Sync"), newSyntax("Mode MODE { }"), "both pipelines", "Of NOTRACK. FTFW (once NACK) and ALARM (once PERSISTENT) have no counterpart: nodes that speak them must change together. A file without Mode means FTFW.", (*converter).mode},
	{at(mode + " Sync"), newSyntax("CommitTimeout SECONDS"), "`commit_timeout` of peers.sink.kernel", "Together with DisableExternalCache conntrackd ignores it, so it is left out.", (*converter).commitTimeout},
	{at(mode + " Sync"), newSyntax("PurgeTimeout SECONDS"), "`purge_timeout` of peers.sink.kernel", "Without it `\"60s\"` is written, conntrackd's default.", seconds("peers.sink.purge_timeout")},
	{at(mode), newSyntax("DisableInternalCache on|off|yes|no"), "no local.cache.memory", "", (*converter).internalCache},
	{at(mode), newSyntax("DisableExternalCache on|off|yes|no"), "no `hold` in peers.cache.memory", "The cache stays, since it knows what a peer's flow was; it passes changes on at once. `coalesce = \"0s\"` is written into both sources.", (*converter).externalCache},
	{at("Sync"), newSyntax("CacheWriteThrough on|off|yes|no"), "no `hold` in peers.cache.memory", "The early name of DisableExternalCache.", (*converter).externalCache},
	{at(mode), newSyntax("StartupResync on|off|yes|no"), "`request_resync` of the source", "Without it `false` is written, conntrackd's default.", toggle("peers.source.request_resync")},
	{at(mode), newSyntax("ResendQueueSize NUMBER"), "", "Nothing waits for acknowledgements.", unneeded("peers.sink.end", "nothing waits for acknowledgements", "Nothing is to be done: what got lost is noticed by its number, and asked for again.")},
	{at(mode), newSyntax("ACKWindowSize NUMBER"), "", "There are no acknowledgements.", unneeded("peers.sink.end", "there are no acknowledgements", "Nothing is to be done: what got lost is noticed by its number, and asked for again.")},
	{at(mode + " Sync"), newSyntax("RefreshTime SECONDS"), "", "No counterpart: flows are sent when they change.", missing("peers.sink.end", "flows are sent when they change, not again and again", "A node that lost something asks for it. To send everything by the clock, call `sluice bulk` from a timer.")},
	{at(mode + " Sync"), newSyntax("CacheTimeout SECONDS"), "", "No counterpart: peers' flows stay until they end.", missing("peers.sink.end", "a peer's flow stays until it ends, or a replay does not name it", "Nothing is to be done, unless a peer goes for good: `sluice flush peers` forgets its flows.")},

	{at("Sync"), newSyntax("Multicast [Default] { }"), "local.sink.multicast, peers.source.multicast", "Several are `link` blocks, the one with Default is `default = true`, or else the first.", (*converter).link},
	{at("Sync"), newSyntax("UDP [Default] { }"), "local.sink.udp, peers.source.udp", "Several as Multicast.", (*converter).link},
	{at("Sync"), newSyntax("TCP [Default] { }"), "local.sink.tcp, peers.source.tcp", "Several as Multicast.", (*converter).link},
	{at("Sync/Multicast"), newSyntax("IPv4_address IPV4"), "`group`", "", (*converter).group},
	{at("Sync/Multicast"), newSyntax("IPv6_address IPV6"), "`group`", "", (*converter).group},
	{at("Sync/Multicast"), newSyntax("Group NUMBER"), "`port`", "", ranged(1, 65535, "local.sink.port", "peers.source.port")},
	{at("Sync/Multicast"), newSyntax("IPv4_interface IPV4"), "`address` of the sink", "", text("local.sink.address")},
	{at("Sync/Multicast"), newSyntax("IPv6_interface IPV6"), "", "Not needed; conntrackd ignores it.", unneeded("local.sink.end", "the interface says it all", "It is ignored by conntrackd, too.")},
	{at(unicast), newSyntax("IPv4_address IPV4"), "`address` of sink and source", "", text("local.sink.address", "peers.source.address")},
	{at(unicast), newSyntax("IPv6_address IPV6"), "`address` of sink and source", "", text("local.sink.address", "peers.source.address")},
	{at(unicast), newSyntax("IPv4_Destination_Address IPV4"), "`destination` of the sink", "", (*converter).destination},
	{at(unicast), newSyntax("IPv6_Destination_Address IPV6"), "`destination` of the sink", "", (*converter).destination},
	{at(unicast), newSyntax("Port NUMBER"), "`port`", "", ranged(1, 65535, "local.sink.port", "peers.source.port")},
	{at(anyLink), newSyntax("Interface NAME"), "`interface`", "", (*converter).device},
	{at(anyLink), newSyntax("SndSocketBuffer BYTES"), "`send_buffer` of the sink", "The same number for all links. conntrackd's kernel doubles it, Sluice's number is what the buffer has in the end.", ranged(0, maxBuffer, "local.sink.send_buffer")},
	{at(anyLink), newSyntax("RcvSocketBuffer BYTES"), "`receive_buffer` of the source", "As SndSocketBuffer. Without it Sluice's own default holds.", ranged(0, maxBuffer, "peers.source.receive_buffer")},
	{at(anyLink), newSyntax("McastSndSocketBuffer BYTES"), "`send_buffer` of the sink", "The early name of SndSocketBuffer.", ranged(0, maxBuffer, "local.sink.send_buffer")},
	{at(anyLink), newSyntax("McastRcvSocketBuffer BYTES"), "`receive_buffer` of the source", "The early name of RcvSocketBuffer.", ranged(0, maxBuffer, "peers.source.receive_buffer")},
	{at(anyLink + " Sync"), newSyntax("Checksum on|off|yes|no"), "`checksum` of the sink", "The same for all links; in Sync, where it once was, as well. TCP always has them.", (*converter).checksum},
	{at("Sync/TCP"), newSyntax("ErrorQueueLength NUMBER"), "", "Not needed: a peer that comes back gets a replay.", unneeded("local.sink.end", "a peer that comes back gets a replay", "Nothing is to be done.")},

	{at("Sync"), newSyntax("Options { }"), "", "A block around what follows.", (*converter).options},
	{at("Sync/Options"), newSyntax("TCPWindowTracking on|off|yes|no"), "`tcp_window_tracking` of peers.sink.kernel, `window_scale` of the sink", "", toggle("peers.sink.tcp_window_tracking", "local.sink.window_scale")},
	{at("Sync/Options"), newSyntax("ExpectationSync on|off|yes|no [{ HELPER... }]"), "`expectations` of local.source.netlink", "", (*converter).expectations},

	{at(""), newSyntax("General { }"), "runner, both pipelines", "", children("runner", "runner.end")},
	{at(general), newSyntax("Systemd on|off|yes|no"), "", "Not needed: `sluice run` reports to systemd when systemd asks for it, and to its watchdog.", (*converter).systemd},
	{at(general), newSyntax("Nice INTEGER"), "", "Not needed: conntrackd ignores it. A unit has `Nice=`.", unneeded("runner.end", "it is ignored by conntrackd, too", "If you want it, a systemd unit has Nice=.")},
	{at(general), newSyntax("HashSize NUMBER"), "", "Not needed: tables grow by themselves.", unneeded("local.cache.limit", "tables grow by themselves", "Nothing is to be done.")},
	{at(general), newSyntax("HashLimit NUMBER"), "`limit` of both caches", "", (*converter).limit},
	{at(general), newSyntax("LogFile on|off|yes|no|PATH"), "`log { file }` of runner", "`on` is /var/log/conntrackd.log. Off, the log goes to standard error, thus to the journal.", (*converter).logFile},
	{at(general), newSyntax("Syslog on|off|yes|no|FACILITY"), "`log { syslog }` of runner", "`on` is `\"daemon\"`.", (*converter).syslog},
	{at(general), newSyntax("LockFile PATH"), "`lock_file` of runner", "Without it conntrackd's default is written: conntrackd does not start while that file is there.", text("runner.lock_file")},
	{at(general), newSyntax("UNIX { }"), "`control` of runner", "", children("runner.control", "runner.control.end")},
	{at("General/UNIX"), newSyntax("Path PATH"), "`control { path }` of runner", "Commands then need `--socket`, or `SLUICE_SOCKET`.", text("runner.control.path")},
	{at("General/UNIX"), newSyntax("Backlog NUMBER"), "`control { backlog }` of runner", "", ranged(1, maxBuffer, "runner.control.backlog")},
	{at(general), newSyntax("NetlinkBufferSize BYTES"), "`buffer_size` of local.source.netlink", "Without it Sluice's own default holds, since conntrackd's depends on the machine.", ranged(0, maxBuffer, "local.source.buffer_size")},
	{at(general), newSyntax("NetlinkBufferSizeMaxGrowth BYTES"), "`buffer_size_max` of local.source.netlink", "As NetlinkBufferSize.", ranged(0, maxBuffer, "local.source.buffer_size_max")},
	{at(general), newSyntax("SocketBufferSize BYTES"), "`buffer_size` of local.source.netlink", "The early name of NetlinkBufferSize.", ranged(0, maxBuffer, "local.source.buffer_size")},
	{at(general), newSyntax("SocketBufferSizeMaxGrown BYTES"), "`buffer_size_max` of local.source.netlink", "The early name of NetlinkBufferSizeMaxGrowth.", ranged(0, maxBuffer, "local.source.buffer_size_max")},
	{at(general), newSyntax("SocketBufferSizeMaxGrowth BYTES"), "`buffer_size_max` of local.source.netlink", "Another early name of it.", ranged(0, maxBuffer, "local.source.buffer_size_max")},
	{at(general), newSyntax("NetlinkOverrunResync on|off|yes|no|SECONDS"), "`overrun_resync` of local.source.netlink", "`on`, and nothing, is `\"30s\"`; `off` is `\"none\"`.", (*converter).overrunResync},
	{at(general), newSyntax("NetlinkEventsReliable on|off|yes|no"), "`reliable` of local.source.netlink", "Without it `false` is written, conntrackd's default.", toggle("local.source.reliable")},
	{at(general), newSyntax("PollSecs SECONDS"), "`poll` of local.source.netlink", "Sluice reads the table beside the events; conntrackd reads it instead of them.", (*converter).poll},
	{at(general), newSyntax("EventIterationLimit NUMBER"), "", "Not needed: every stage is a process of its own.", unneeded("local.source.end", "every stage is a process of its own", "Nothing is to be done: events never keep another stage waiting.")},
	{at(general), newSyntax("Scheduler { }"), "`scheduler` of runner", "Without it `\"rr\"` and 1 are written: conntrackd takes RR, 99.", (*converter).scheduler},
	{at("General/Scheduler"), newSyntax("Type NAME"), "`scheduler { type }` of runner", "Without it `\"rr\"` is written, conntrackd's default.", (*converter).schedulerType},
	{at("General/Scheduler"), newSyntax("Priority NUMBER"), "`scheduler { priority }` of runner", "Without it 99 is written, conntrackd's default.", ranged(1, 99, "runner.scheduler.priority")},

	{at(general), newSyntax("Filter [From Userspace|Kernelspace] { }"), "local.filter.basic", "Above the cache. `Kernelspace` is `kernel_filter = true` in local.source.netlink; what passes is the same.", (*converter).filter},
	{at(filterSets), newSyntax("Protocol Accept|Ignore { PROTOCOL... }"), "`protocol` of local.filter.basic", "", (*converter).protocols},
	{at(filterSets), newSyntax("Address Accept|Ignore { }"), "`address` of local.filter.basic", "", (*converter).addresses},
	{at("General/Filter/Address"), newSyntax("IPv4_address IPV4|IPV4/BITS"), "an element of the list", "", nil},
	{at("General/Filter/Address"), newSyntax("IPv6_address IPV6|IPV6/BITS"), "an element of the list", "", nil},
	{at(filterSets), newSyntax("State Accept|Ignore { STATE... for TCP }"), "`state` of local.filter.state", "A filter of its own below the cache, where it sees whole flows.", (*converter).states},

	{at(""), newSyntax("Stats { }"), "pipeline stats", "It has the source, the filters and the limit of General, but for State: only ends are logged.", (*converter).stats},
	{at("Stats"), newSyntax("LogFile on|off|yes|no|PATH"), "`path` of stats.sink.file", "`on` is /var/log/conntrackd-stats.log. The time stands in front in another form.", (*converter).statsFile},
	{at("Stats"), newSyntax("Syslog on|off|yes|no|FACILITY"), "`syslog` of stats.sink.syslog", "`on` is `\"daemon\"`.", (*converter).statsSyslog},
	{at("Stats"), newSyntax("NetlinkEventsReliable on|off|yes|no"), "`reliable` of stats.source.netlink", "", toggle("stats.source.reliable")},

	{at(""), newSyntax("Helper { }"), "", "No counterpart: Sluice has no helpers in user space.", missing("end", "Sluice has no helpers in user space", "Keep a conntrackd for them, with General and Helper alone and a LockFile and a UNIX Path of its own.")},
	{at("Helper"), newSyntax("Setup on|off|yes|no"), "", "As Helper.", nil},
	{at("Helper"), newSyntax("Type NAME inet|inet6 tcp|udp { }"), "", "As Helper.", nil},
	{at("Helper/Type"), newSyntax("QueueNum NUMBER"), "", "As Helper.", nil},
	{at("Helper/Type"), newSyntax("QueueLen NUMBER"), "", "As Helper.", nil},
	{at("Helper/Type"), newSyntax("Policy NAME { }"), "", "As Helper.", nil},
	{at("Helper/Type/Policy"), newSyntax("ExpectMax NUMBER"), "", "As Helper.", nil},
	{at("Helper/Type/Policy"), newSyntax("ExpectTimeout SECONDS"), "", "As Helper.", nil},
}

func at(sections string) []string { return strings.Split(sections, " ") }

// within returns the path of a block in a section.
func within(section, name string) string { return strings.TrimPrefix(section+"/"+name, "/") }

// lookup returns the row of a directive in a section, or nil.
func lookup(section, name string) *row {
	for i := range table {
		if r := &table[i]; r.syntax.name == name && slices.Contains(r.sections, section) {
			return r
		}
	}
	return nil
}

// namesIn returns what may stand in a section.
func namesIn(section string) (names []string) {
	for _, r := range table {
		if slices.Contains(r.sections, section) {
			names = append(names, r.syntax.name)
		}
	}
	return names
}

// sectionsOf returns where a directive may stand.
func sectionsOf(name string) (sections []string) {
	for _, r := range table {
		if r.syntax.name == name {
			sections = append(sections, r.sections...)
		}
	}
	return slices.DeleteFunc(sections, func(s string) bool { return s == "" })
}
