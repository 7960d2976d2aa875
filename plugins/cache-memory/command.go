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

// Command implements plugin.Commander.
func (c *Cache) Command(ctx context.Context, command plugin.Command, out io.Writer) error {
	switch command.Name {
	case "dump":
		filter, err := parseFilter(command.Args)
		if err != nil {
			return fmt.Errorf("dump: %w", err)
		}
		return c.dump(ctx, filter, command.JSON, out)
	case "flush":
		committed := slices.Equal(command.Args, []string{"committed"})
		if len(command.Args) > 0 && !committed {
			return fmt.Errorf("flush: %q is no argument: it takes none, or committed", command.Args)
		}
		return c.flush(committed, command.JSON, out)
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
}

// dump writes the flows that pass the filter. It holds the table's lock for one
// step at a time, so what it shows is not of one moment.
func (c *Cache) dump(ctx context.Context, filter filter, asJSON bool, out io.Writer) error {
	w := bufio.NewWriterSize(out, 32<<10)
	flows, memory := make([]copied, 0, step), []byte(nil)
	var line []byte
	for slot, more := uint32(0), true; more; {
		flows, memory = flows[:0], memory[:0]
		flows, memory, slot, more = c.copy(flows, memory, slot)
		for i := range flows {
			if !filter.accepts(&flows[i]) {
				continue
			}
			line = c.appendLine(line[:0], &flows[i], asJSON)
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

// copy copies the flows of one step after the slot last; their tails into
// memory.
func (c *Cache) copy(flows []copied, memory []byte, last uint32) ([]copied, []byte, uint32, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	core, now := c.core, c.clock()
	for n := step; last < core.last && n > 0; n-- {
		last++
		e := core.at(last)
		if !e.alive() {
			continue
		}
		one := copied{owner: core.owners.list[e.owner].address, foreign: e.has(flagForeign), sent: e.has(flagSent), age: now - e.changed}
		core.table.event(e, &one.event)
		begin := len(memory)
		memory = append(memory, one.event.Tail...)
		one.event.Tail = memory[begin:len(memory):len(memory)]
		flows = append(flows, one)
	}
	return flows, memory, last, last < core.last
}

// A line is a flow in JSON, with what the cache knows of it.
type line struct {
	flow.View
	Owner     string `json:"owner,omitempty"`     // the peer that owns it
	Foreign   bool   `json:"foreign,omitempty"`   // another node's flow in this node's kernel
	Committed bool   `json:"committed,omitempty"` // of a cache with hold: it was passed on
	Age       uint32 `json:"age"`                 // seconds since the last event
}

func (c *Cache) appendLine(p []byte, one *copied, asJSON bool) []byte {
	owner := ""
	if one.owner.IsValid() {
		owner = one.owner.String()
	}
	if asJSON {
		b, err := json.Marshal(line{one.event.View(), owner, one.foreign, c.config.Hold && one.sent, one.age})
		if err != nil {
			b = fmt.Appendf(nil, `{"error":%q}`, err.Error())
		}
		return append(append(p, b...), '\n')
	}
	p = one.event.Flow.AppendText(p)
	if owner != "" {
		p = append(append(p, " owner="...), owner...)
	}
	if one.foreign {
		p = append(p, " [FOREIGN]"...)
	}
	return append(p, '\n')
}

// flush empties the cache, or takes those flows out of it that were passed on:
// what came after a commit had gone by stays for another. No DESTROY leaves the
// cache: the stages below keep what they know.
func (c *Cache) flush(committed, asJSON bool, out io.Writer) error {
	flushed, left := 0, 0
	for slot, more := uint32(0), true; more; {
		c.mu.Lock()
		var n int
		n, slot, more = c.core.flush(committed, slot, step)
		left = c.core.count.flows
		c.mu.Unlock()
		flushed += n
	}
	counts := map[string]int{"flows": flushed}
	if committed {
		counts["left"] = left
	}
	return answer(asJSON, out, counts)
}

// flush forgets the flows of up to n slots after last, or those of them that
// were passed on.
func (c *core) flush(committed bool, last uint32, n int) (flushed int, _ uint32, more bool) {
	for ; last < c.last && n > 0; n-- {
		last++
		if e := c.at(last); e.alive() && (!committed || e.has(flagSent)) {
			c.kill(e)
			c.remove(last)
			flushed++
		}
	}
	if last >= c.last && c.index.used == 0 && len(c.replays.graves) == 0 {
		seed := c.seed
		c.table = newTable()
		c.seed = seed
		return flushed, last, false
	}
	return flushed, last, last < c.last
}

// stats counts flows by owner, by protocol and by state.
func (c *Cache) stats(asJSON bool, out io.Writer) error {
	counts := map[string]int{}
	flows, memory := make([]copied, 0, step), []byte(nil)
	for slot, more := uint32(0), true; more; {
		flows, memory, slot, more = c.copy(flows[:0], memory[:0], slot)
		for i := range flows {
			one := &flows[i]
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
