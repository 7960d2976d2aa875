package pipeline

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/sluice-project/sluice/core/plugin"
)

// The plugins of these tests have the shapes of the bundled ones, without their
// work: pipelines know nothing but what a plugin says of itself.
var testPlugins = []plugin.Definition{
	{Kind: plugin.KindSource, Type: "netlink", Config: func() any {
		return &testNetlink{BufferSize: 2 << 20, Coalesce: plugin.Duration(2 * time.Millisecond)}
	}},
	{Kind: plugin.KindSource, Type: "multicast", Config: func() any { return &testReceiver{testLink: testLink{Port: 3780}} }},
	{Kind: plugin.KindFilter, Type: "basic", Config: func() any { return &testFilter{} }},
	{Kind: plugin.KindFilter, Type: "rate", Config: func() any { return &testNothing{} }},
	{Kind: plugin.KindCache, Type: "memory", Config: func() any { return &testCache{Limit: 65535} }},
	{Kind: plugin.KindSink, Type: "multicast", Config: func() any { return &testLink{Port: 3780} }},
	{Kind: plugin.KindSink, Type: "kernel", Config: func() any { return &testKernel{} }},
	{Kind: plugin.KindSink, Type: "log", Config: func() any { return &testLog{} }},
}

type testNothing struct{}

type testNetlink struct {
	BufferSize plugin.Size     `hcl:"buffer_size,optional"`
	Coalesce   plugin.Duration `hcl:"coalesce,optional"`
	NetNS      string          `hcl:"netns,optional"`
}

func (c *testNetlink) Traits() plugin.Traits { return plugin.Traits{Kernel: true, NetNS: c.NetNS} }

type testLink struct {
	Group     netip.Addr `hcl:"group"`
	Port      uint16     `hcl:"port,optional"`
	Interface string     `hcl:"interface"`
	Address   netip.Addr `hcl:"address,optional"`
	Checksum  bool       `hcl:"checksum,optional"`
}

func (c *testLink) Validate() (d plugin.Diagnostics) {
	if !c.Group.IsMulticast() {
		d.Add(plugin.Path("group"), "No multicast group", "%v is no multicast address.", c.Group)
	}
	return d
}

func (c *testLink) Traits() plugin.Traits {
	return plugin.Traits{Link: fmt.Sprintf("%v:%d@%s", c.Group, c.Port, c.Interface)}
}

type testReceiver struct {
	testLink
	AcceptFrom    []netip.Prefix `hcl:"accept_from,optional"`
	RequestResync bool           `hcl:"request_resync,optional"`
}

func (c *testReceiver) Traits() plugin.Traits {
	t := c.testLink.Traits()
	t.RequestResync = c.RequestResync
	return t
}

type testFilter struct {
	Protocol *testSet `hcl:"protocol,block"`
	Address  *testSet `hcl:"address,block"`
	State    *testSet `hcl:"state,block"`
}

type testSet struct {
	Accept []string `hcl:"accept,optional"`
	Ignore []string `hcl:"ignore,optional"`
}

func (c *testFilter) Validate() (d plugin.Diagnostics) {
	words := func(what string, known ...string) func(string) string {
		return func(s string) string {
			for _, k := range known {
				if strings.EqualFold(k, s) {
					return ""
				}
			}
			return fmt.Sprintf("There is no %s %q.", what, s)
		}
	}
	c.Protocol.check(&d, "protocol", words("protocol", "tcp", "udp"))
	c.State.check(&d, "state", words("TCP state", "ESTABLISHED", "CLOSED"))
	c.Address.check(&d, "address", func(s string) string {
		_, err1 := netip.ParseAddr(s)
		_, err2 := netip.ParsePrefix(s)
		if err1 != nil && err2 != nil {
			return fmt.Sprintf("%q is no address and no network prefix.", s)
		}
		return ""
	})
	return d
}

func (s *testSet) check(d *plugin.Diagnostics, name string, wrong func(string) string) {
	if s == nil {
		return
	}
	if s.Accept != nil && s.Ignore != nil {
		d.Add(plugin.Path(name), "Both accept and ignore", "Keep one.")
	}
	for list, values := range map[string][]string{"accept": s.Accept, "ignore": s.Ignore} {
		for i, v := range values {
			if detail := wrong(v); detail != "" {
				d.Add(plugin.Path(name, list, i), "Bad "+name, "%s", detail)
			}
		}
	}
}

type testCache struct {
	Limit uint32 `hcl:"limit,optional"`
	Hold  bool   `hcl:"hold,optional"`
}

func (c *testCache) Traits() plugin.Traits { return plugin.Traits{Hold: c.Hold} }

type testKernel struct {
	Scope        string          `hcl:"scope,optional"`
	PurgeTimeout plugin.Duration `hcl:"purge_timeout,optional"`
	NetNS        string          `hcl:"netns,optional"`
}

func (c *testKernel) Traits() plugin.Traits {
	return plugin.Traits{Kernel: true, Scope: c.Scope, NetNS: c.NetNS, PurgeAfter: int64(c.PurgeTimeout)}
}

type testLog struct {
	Fields []string      `hcl:"fields,optional"`
	Factor float64       `hcl:"factor,optional"`
	Labels testLabels    `hcl:"labels,optional"`
	Key    string        `hcl:"key,optional"`
	Copies []testLogCopy `hcl:"copy,block"`
}

type testLabels map[string]string

type testLogCopy struct {
	Path string      `hcl:"path"`
	Size plugin.Size `hcl:"size,optional"`
}

func (c *testLog) Validate() (d plugin.Diagnostics) {
	if math.Abs(c.Factor) > 10 {
		d.Add(plugin.Path("factor"), "Number out of range", "%v is more than 10.", c.Factor)
	}
	if c.Key != "" && len(c.Key) < 8 {
		d.Add(plugin.Path("key"), "Short key", "%q has fewer than 8 characters.", c.Key)
	}
	for i, one := range c.Copies {
		if !strings.HasPrefix(one.Path, "/") {
			d.Add(plugin.Path("copy", i, "path"), "Relative path", "%q is relative.", one.Path)
		}
	}
	for name, value := range c.Labels {
		if value == "" {
			d.Add(plugin.Path("labels", name), "Empty label", "The label %q is empty.", name)
		}
	}
	return d
}
