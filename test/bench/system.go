package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// A system is what is compared.
type system interface {
	Name() string
	// Start runs a node on a firewall and returns when it works.
	Start(fw *testbed.Firewall, o options) (peer, error)
}

// kernel stands for the kernel alone where a figure is its limit.
type kernel struct{ system }

func (kernel) Name() string { return nameKernel }

// options are what differs between the figures' nodes.
type options struct {
	WriteThrough bool
	Limit        int    // most flows of a cache; 0: 2²¹
	Coalesce     string // Sluice: of its sources; "": the default
	NoResync     bool   // Sluice: peers are asked for nothing at the start, as conntrackd does it
}

// A peer is a running node of either system.
type peer interface {
	PIDs() []int              // of all its processes
	Internal() (cache, error) // what it knows of its own kernel
	External() (cache, error) // what its peer told
	Commit() error            // give the command; it may still be at work after
	TakeOver() error          // likewise
	Bulk() error              // likewise
	Close() error
}

// A cache is one cache of a peer.
type cache struct {
	Flows int
	PID   int // of the process that keeps it
}

const defaultLimit = 1 << 21

func (o options) limit() int {
	if o.Limit == 0 {
		return defaultLimit
	}
	return o.Limit
}

// sluice is the binary at this path, with the settings of the example files; with
// the real-time scheduler, that is, unless it is ordinary.
type sluice struct {
	binary   string
	ordinary bool
}

func (s sluice) Name() string {
	if s.ordinary {
		return nameSluiceOrdinary
	}
	return nameSluice
}

const realTime = "scheduler {\n  type     = \"rr\"\n  priority = 1\n}\n"

func (s sluice) Start(fw *testbed.Firewall, o options) (peer, error) {
	limit := fmt.Sprintf("limit = %d", o.limit())
	more := map[string]string{"local": limit, "peers": limit + "\nhold = true"}
	if o.WriteThrough {
		more["peers"] = limit
	}
	if o.Coalesce != "" {
		more["netlink"] = "coalesce = " + strconv.Quote(o.Coalesce)
		more["source"] = more["netlink"]
	}
	if o.NoResync {
		more["source"] += "\nrequest_resync = false"
	}
	scheduler := realTime
	if s.ordinary {
		scheduler = ""
	}
	n, err := node.Start(s.binary, fw, filepath.Base(fw.Name()), node.Pipelines(more), scheduler)
	if err != nil {
		return nil, err
	}
	return &sluiceNode{n}, nil
}

type sluiceNode struct{ *node.Node }

func (n *sluiceNode) PIDs() []int { return testbed.Tree(n.Pid()) }

func (n *sluiceNode) cache(address string) (c cache, err error) {
	s, err := n.Stage(address)
	if err != nil {
		return c, err
	}
	c.PID = s.PID
	for _, v := range s.Statistics {
		if v.Name == "flows" {
			c.Flows = int(v.Value)
		}
	}
	return c, nil
}

func (n *sluiceNode) Internal() (cache, error) { return n.cache("local.cache.memory") }
func (n *sluiceNode) External() (cache, error) { return n.cache("peers.cache.memory") }

func (n *sluiceNode) Commit() error   { _, err := n.Sluice("commit"); return err }
func (n *sluiceNode) TakeOver() error { _, err := n.Sluice("role", "primary"); return err }
func (n *sluiceNode) Bulk() error     { _, err := n.Sluice("bulk"); return err }

// conntrackd is the one that is installed. It gives itself the real-time
// scheduler; ordinary takes it back.
type conntrackd struct{ ordinary bool }

func (c conntrackd) Name() string {
	if c.ordinary {
		return nameOrdinary
	}
	return nameConntrackd
}

func (c conntrackd) Start(fw *testbed.Firewall, o options) (peer, error) {
	d, err := testbed.NewDaemon(fw.Namespace, testbed.ConntrackdConfig{
		Address: fw.Sync.V4.Addr(), CommitTimeout: 180, DisableExternalCache: o.WriteThrough, HashLimit: o.limit(),
		Normal: c.ordinary,
		Ignore: []netip.Addr{netip.MustParseAddr("127.0.0.1"), fw.Sync.V4.Addr()},
	})
	if err != nil {
		return nil, err
	}
	return &daemon{d}, nil
}

type daemon struct{ *testbed.Daemon }

func (d *daemon) PIDs() []int { return []int{d.Pid()} }

func (d *daemon) cache(which string) (c cache, err error) {
	text, err := d.Ctl("-s")
	if err != nil {
		return c, err
	}
	_, rest, ok := strings.Cut(text, "cache "+which)
	_, rest, ok2 := strings.Cut(rest, "current active connections:")
	fields := strings.Fields(rest)
	if !ok || !ok2 || len(fields) == 0 {
		return c, errors.New("bench: conntrackd -s tells nothing of its cache " + which)
	}
	c.PID = d.Pid()
	c.Flows, err = strconv.Atoi(fields[0])
	return c, err
}

func (d *daemon) Internal() (cache, error) { return d.cache("internal") }
func (d *daemon) External() (cache, error) { return d.cache("external") }

func (d *daemon) Commit() error   { _, err := d.Ctl("-c"); return err }
func (d *daemon) TakeOver() error { return d.Commit() }
func (d *daemon) Bulk() error     { _, err := d.Ctl("-B"); return err }
