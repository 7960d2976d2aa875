package conntrackdconf

import (
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// stats converts the section of the statistics collector, which writes a line
// for each flow that ended.
func (c *converter) stats(n *Node) {
	children("stats", "stats.end")(c, n)
	if !c.slot("stats.file.path").has() && !c.slot("stats.syslog.syslog").has() {
		c.fail(n, "Nowhere to log to", "The section names neither a file nor syslog, so flows that ended are logged nowhere. Add `LogFile on`, or remove the section.")
	}
}

func (c *converter) statsFile(n *Node) {
	switch word := n.arg(); {
	case strings.HasPrefix(word, "/"):
		c.set(n, "stats.file.path", cty.StringVal(word))
	case on(word):
		c.set(n, "stats.file.path", cty.StringVal("/var/log/conntrackd-stats.log"))
	default:
		c.keep(n, "stats.end", "")
	}
}

func (c *converter) statsSyslog(n *Node) {
	switch word := n.arg(); {
	case on(word):
		c.set(n, "stats.syslog.syslog", cty.StringVal("daemon"))
	case fits("FACILITY", word):
		c.set(n, "stats.syslog.syslog", cty.StringVal(word))
	default:
		c.keep(n, "stats.end", "")
	}
}

// finishStats gives the pipeline of the statistics what General says of sources
// and filters. It takes that over from the pipeline "local", or, if there is a
// Sync, has the same without its comments.
func (c *converter) finishStats() {
	c.want("stats.source", "stats.cache")
	for _, s := range []string{"file", "syslog"} {
		if c.slot("stats." + s + "." + map[string]string{"file": "path", "syslog": "syslog"}[s]).has() {
			c.also("stats."+s+".name", cty.StringVal(s))
		}
	}
	for address, from := range c.slots {
		to, shared := statsAddress(address)
		if !shared {
			continue
		}
		old := c.slot(to)
		if c.synchronizes {
			from = &slot{value: from.value, list: plain(from.list), wanted: from.wanted}
		} else {
			delete(c.slots, address)
		}
		from.before = append(from.before, old.before...)
		if old.value != cty.NilVal { // Stats says it itself
			from.value, from.after = old.value, old.after
		}
		c.slots[to] = from
	}
	c.bounds("stats.source")
}

// statsAddress returns where the pipeline "stats" has what stands at an address
// of "local", if it has it.
func statsAddress(address string) (to string, shared bool) {
	rest, ok := strings.CutPrefix(address, "local.")
	part, _, _ := strings.Cut(rest, ".")
	return "stats." + rest, ok && (part == "source" || part == "filter" || part == "cache") && rest != "source.expectations"
}

// plain returns the elements without their comments.
func plain(list []element) (values []element) {
	for _, e := range list {
		values = append(values, element{value: e.value})
	}
	return values
}
