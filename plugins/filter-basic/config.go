package filterbasic

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindFilter,
	Type:    "basic",
	Summary: "Lets events pass by protocol, address and TCP state.",
	Config:  func() any { return &Config{} },
}

// Config is the plugin's block. An event passes when every set that is present
// passes it; without sets everything passes. No set needs a privilege.
type Config struct {
	Protocol *Set `hcl:"protocol,block" doc:"Layer-4 protocols, by name (tcp, udp, icmp, icmpv6, sctp, gre, esp, …) or number."`
	Address  *Set `hcl:"address,block" doc:"Addresses and prefixes, IPv4 and IPv6, compared with the original source and the reply source: the real ends of a translated flow. An event is in the set when either is."`
	State    *Set `hcl:"state,block" doc:"TCP states (SYN_SENT, ESTABLISHED, …). Other protocols, flows whose state is not known, and the end of a flow always pass."`
}

// A Set is a list of values with what to do with events in it. It has exactly
// one of the two lists, which is never empty.
type Set struct {
	Accept []string `hcl:"accept,optional" doc:"Only events in this list pass."`
	Ignore []string `hcl:"ignore,optional" doc:"Events in this list don't pass, all others do."`
}

// Validate checks the values of all sets.
func (c *Config) Validate() plugin.Diagnostics {
	_, d := c.compile()
	return d
}

// Build makes the filter.
func (c *Config) Build() (any, error) {
	f, d := c.compile()
	if len(d) > 0 {
		return nil, d
	}
	return f, nil
}

// Traits tells the source above what certainly does not pass: what the sets of
// protocols and addresses say. States change, and are nobody else's business.
func (c *Config) Traits() plugin.Traits {
	var s flow.Screen
	if set := c.Protocol; set != nil {
		l := &flow.ProtocolList{Accept: set.Accept != nil}
		for _, name := range append(set.Accept, set.Ignore...) {
			number, _ := flow.ParseProtocol(name)
			l.Protocols = append(l.Protocols, number)
		}
		s.Protocols = l
	}
	if set := c.Address; set != nil {
		l := &flow.AddressList{Accept: set.Accept != nil}
		for _, text := range append(set.Accept, set.Ignore...) {
			p, _ := parsePrefix(text)
			l.Prefixes = append(l.Prefixes, p)
		}
		s.Addresses = l
	}
	return plugin.Traits{Screen: &s}
}

func (c *Config) compile() (*Filter, plugin.Diagnostics) {
	var f Filter
	var d plugin.Diagnostics
	f.hasProtocol = compileSet(&d, "protocol", c.Protocol, f.protocol.add(flow.ParseProtocol), &f.protocolAccepts)
	f.hasAddress = compileSet(&d, "address", c.Address, f.addresses.add, &f.addressAccepts)
	f.hasState = compileSet(&d, "state", c.State, f.state.add(flow.ParseTCPState), &f.stateAccepts)
	return &f, d
}

// compileSet adds every value of a set, tells in accepts which list it was, and
// says whether there is such a set.
func compileSet(d *plugin.Diagnostics, name string, set *Set, add func(string) error, accepts *bool) bool {
	if set == nil {
		return false
	}
	list, values := "ignore", set.Ignore
	if set.Accept != nil {
		list, values = "accept", set.Accept
	}
	switch *accepts = set.Accept != nil; {
	case set.Accept != nil && set.Ignore != nil:
		d.Add(plugin.Path(name, "ignore"), "Both accept and ignore",
			"The %s set has accept and ignore, but only one of them can be meant: an event that is in neither list would "+
				"have no answer. Keep one; a second filter \"basic\" can have the other.", name)
		return true
	case len(values) == 0:
		d.Add(plugin.Path(name), "Empty set", "The %s set names nothing. Write accept = [ … ] or ignore = [ … ], "+
			"or leave the block out to let everything pass.", name)
		return true
	}
	for i, value := range values {
		if err := add(value); err != nil {
			d.Add(plugin.Path(name, list, i), "Bad "+name, "%s", sentence(value, err))
		}
	}
	return true
}

// sentence turns an error about a value into advice.
func sentence(value string, err error) string {
	var unknown *flow.NameError
	switch {
	case !errors.As(err, &unknown):
		return fmt.Sprintf("%q is %s.", value, err)
	case len(unknown.Near) > 0:
		return fmt.Sprintf("There is no %s %q. Did you mean %q?", unknown.What, value, unknown.Near[0])
	default:
		return fmt.Sprintf("There is no %s %q. Known are %s.", unknown.What, value, strings.Join(unknown.Known, ", "))
	}
}

// Errors of addresses, as the end of a sentence that begins with the address.
var (
	errAddress = errors.New(`no IP address: write one like "192.0.2.1" or "2001:db8::1"`)
	errPrefix  = errors.New(`no network prefix: write one like "192.0.2.0/24" or "2001:db8::/32"`)
	errZone    = errors.New("an address with a zone, which flows don't have: leave out what follows the %")
)

// parsePrefix reads an address, or a prefix with whatever host bits.
func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil:
			return netip.Prefix{}, errAddress
		case a.Zone() != "":
			return netip.Prefix{}, errZone
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errPrefix
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
