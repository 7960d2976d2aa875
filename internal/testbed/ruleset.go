package testbed

import (
	"fmt"
	"strings"
)

// trackRules is the least that makes the kernel track connections: without a
// rule that uses ct the conntrack hooks are absent, packets pass untracked and
// injected entries are never consulted.
const trackRules = `
table inet testbed {
	chain input {
		type filter hook input priority filter; policy accept;
		ct state invalid counter
	}
	chain output {
		type filter hook output priority filter; policy accept;
		ct state invalid counter
	}
}
`

// Track makes the namespace track the connections of its own sockets.
func (n *Namespace) Track() error { return n.Rules(trackRules) }

// Rules loads nftables rules, in the syntax of nft -f, on top of those there.
func (n *Namespace) Rules(text string) error {
	cmd := n.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if _, err := output(cmd); err != nil {
		return fmt.Errorf("testbed: %s: rules: %w", n, err)
	}
	return nil
}

// natRules are NAT chains of both families. They exist even when nothing is to
// be translated, since without them an entry that says it is translated passes
// packets untouched, and says no word about it.
const natRules = `
table %[1]s nat {
	chain prerouting {
		type nat hook prerouting priority dstnat;
	}
	chain postrouting {
		type nat hook postrouting priority srcnat;
		%[2]s
	}
}
`

// filterRules forward what belongs to a connection and drop what fits none, as
// a careful administrator's would: a firewall that lacks the state of a flow
// breaks it. Synchronisation traffic is not tracked.
const filterRules = `
table inet testbed {
	chain prerouting {
		type filter hook prerouting priority raw;
		iifname sync notrack
	}
	chain rawoutput {
		type filter hook output priority raw;
		oifname sync notrack
	}
	chain input {
		type filter hook input priority filter;
		ct state invalid counter drop
	}
	chain forward {
		type filter hook forward priority filter;
		ct state invalid counter drop
	}
}
`

// firewallRules is the ruleset of a firewall of a topology.
func firewallRules(snat bool, extra string) string {
	rules := filterRules
	for _, family := range []struct {
		name string
		from string
		to   string
	}{
		{"ip", InsideVIP.V4.Masked().String(), OutsideVIP.V4.Addr().String()},
		{"ip6", InsideVIP.V6.Masked().String(), OutsideVIP.V6.Addr().String()},
	} {
		translate := ""
		if snat {
			translate = fmt.Sprintf("oifname %s %s saddr %s snat to %s", OutsideLink, family.name, family.from, family.to)
		}
		rules += fmt.Sprintf(natRules, family.name, translate)
	}
	return rules + extra
}
