package cachememory

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// The arguments of commands that are words of their own.
const (
	argExpectations = "expectations" // dump, flush: these and no flows
	argCommitted    = "committed"    // flush: what was passed on
)

// Command implements plugin.Commander.
func (c *Cache) Command(ctx context.Context, command plugin.Command, out io.Writer) error {
	switch command.Name {
	case "dump":
		of, args := flows, command.Args
		if len(args) > 0 && args[0] == argExpectations {
			of, args = expectations, args[1:]
		}
		filter, err := parseFilter(args)
		if err != nil {
			return fmt.Errorf("dump: %w", err)
		}
		return c.dump(ctx, of, filter, command.JSON, out)
	case "flush":
		var f flushing
		for _, arg := range command.Args {
			switch arg {
			case argCommitted:
				f.committed = true
			case argExpectations:
				f.expectations = true
			default:
				return fmt.Errorf("flush: %q is no argument: known are %s and %s", arg, argCommitted, argExpectations)
			}
		}
		return c.flush(f, command.JSON, out)
	case "stats":
		return c.stats(command.JSON, out)
	}
	return fmt.Errorf("unknown command %q: a memory cache knows dump, flush and stats", command.Name)
}

// A copied is an entry outside the table's lock.
type copied struct {
	event   flow.Event
	owner   netip.Addr
	foreign bool
	sent    bool
	age     uint32
	active  uint32
}

// dump writes the flows, or the expectations, that pass the filter. It holds the table's lock for one
// step at a time, so what it shows is not of one moment.
func (c *Cache) dump(ctx context.Context, of class, filter filter, asJSON bool, out io.Writer) error {
	w := bufio.NewWriterSize(out, 32<<10)
	copies, memory := make([]copied, 0, step), []byte(nil)
	var line []byte
	for slot, more := uint32(0), true; more; {
		copies, memory = copies[:0], memory[:0]
		copies, memory, slot, more = c.copy(of, copies, memory, slot)
		for i := range copies {
			if !filter.accepts(&copies[i]) {
				continue
			}
			line = c.appendLine(line[:0], &copies[i], asJSON)
			if _, err := w.Write(line); err != nil {
				return fmt.Errorf("dump: %w", err)
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return w.Flush()
}

// copy copies what one step has of a class after the slot last; their tails into
// memory.
func (c *Cache) copy(of class, copies []copied, memory []byte, last uint32) ([]copied, []byte, uint32, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	core, now := c.core, c.clock()
	for n := step; last < core.last && n > 0; n-- {
		last++
		e := core.at(last)
		if !e.alive() || e.class() != of {
			continue
		}
		one := copied{
			owner: core.owners.list[e.owner].address, foreign: e.has(flagForeign), sent: e.has(flagSent),
			age: now - e.changed, active: now - e.since,
		}
		core.table.event(e, &one.event)
		begin := len(memory)
		memory = append(memory, one.event.Tail...)
		one.event.Tail = memory[begin:len(memory):len(memory)]
		copies = append(copies, one)
	}
	return copies, memory, last, last < core.last
}

// A line is a flow or an expectation in JSON, with what the cache knows of it.
type line struct {
	flow.View
	Owner     string `json:"owner,omitempty"`     // the peer that owns it
	Foreign   bool   `json:"foreign,omitempty"`   // another node's flow in this node's kernel
	Committed bool   `json:"committed,omitempty"` // of a cache with hold: it was passed on
	Age       uint32 `json:"age"`                 // seconds since the last event
	Active    uint32 `json:"active"`              // seconds since it became known here
}

func (c *Cache) appendLine(p []byte, one *copied, asJSON bool) []byte {
	owner := ""
	if one.owner.IsValid() {
		owner = one.owner.String()
	}
	if asJSON {
		view := one.event.View()
		view.Kind = "" // it is no event
		b, err := json.Marshal(line{view, owner, one.foreign, c.config.Hold && one.sent, one.age, one.active})
		if err != nil {
			b = fmt.Appendf(nil, `{"error":%q}`, err.Error())
		}
		return append(append(p, b...), '\n')
	}
	if one.event.IsExpectation() {
		p = one.event.AppendExpectation(p)
	} else {
		p = one.event.Flow.AppendText(p)
	}
	if owner != "" {
		p = append(append(p, " owner="...), owner...)
	}
	if one.foreign {
		p = append(p, " [FOREIGN]"...)
	}
	return append(p, '\n')
}

// flushing says what to flush; the zero value everything.
type flushing struct {
	committed    bool // only what was passed on: what came after a commit had gone by stays for another
	expectations bool // only these
}

// flush takes entries out of the cache. No DESTROY leaves it: the stages below
// keep what they know.
func (c *Cache) flush(f flushing, asJSON bool, out io.Writer) error {
	var flushed [classes]int
	left := 0
	for slot, more := uint32(0), true; more; {
		c.mu.Lock()
		slot, more = c.core.flush(f, slot, step, &flushed)
		if !more {
			c.letGo()
		}
		left = c.core.count.of[flows].held + c.core.count.of[expectations].held
		c.mu.Unlock()
	}
	counts := map[string]int{}
	if !f.expectations {
		counts["flows"] = flushed[flows]
	}
	if f.expectations || flushed[expectations] > 0 {
		counts["expectations"] = flushed[expectations]
	}
	if f.committed {
		counts["left"] = left
	}
	return answer(asJSON, out, counts)
}

// flush forgets what is to be flushed among up to n slots after last.
func (c *core) flush(f flushing, last uint32, n int, flushed *[classes]int) (_ uint32, more bool) {
	for ; last < c.last && n > 0; n-- {
		last++
		e := c.at(last)
		of := e.class()
		if e.alive() && (!f.committed || e.has(flagSent)) && (!f.expectations || of == expectations) {
			c.kill(e)
			c.remove(last)
			flushed[of]++
		}
	}
	if last >= c.last && c.index.used == 0 && len(c.replays.graves) == 0 {
		seed := c.seed
		c.table = newTable()
		c.seed = seed
		return last, false
	}
	return last, last < c.last
}

// stats counts flows by owner, by protocol and by state, and expectations.
func (c *Cache) stats(asJSON bool, out io.Writer) error {
	counts := map[string]int{}
	copies, memory := make([]copied, 0, step), []byte(nil)
	for slot, more := uint32(0), true; more; {
		copies, memory, slot, more = c.copy(flows, copies[:0], memory[:0], slot)
		for i := range copies {
			one := &copies[i]
			counts["flows"]++
			counts["protocol "+flow.ProtocolName(one.event.Protocol)]++
			if s := one.event.StateName(); s != "" {
				counts["state "+flow.ProtocolName(one.event.Protocol)+" "+s]++
			}
			if one.owner.IsValid() {
				counts["owner "+one.owner.String()]++
			}
			if one.foreign {
				counts["foreign"]++
			}
		}
	}
	c.mu.Lock()
	counts["expectations"] = c.core.count.of[expectations].held
	c.mu.Unlock()
	counts["limit"] = int(c.config.Limit)
	return answer(asJSON, out, counts)
}

// answer writes counts, one a line or as one JSON object.
func answer(asJSON bool, out io.Writer, counts map[string]int) error {
	if asJSON {
		return json.NewEncoder(out).Encode(counts)
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if _, err := fmt.Fprintf(out, "%-28s %d\n", name, counts[name]); err != nil {
			return err
		}
	}
	return nil
}
