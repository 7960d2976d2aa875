package flow

import (
	"net/netip"
	"strings"
	"testing"
)

func TestConditions(t *testing.T) {
	e := Event{Kind: Update, Flow: tcpFlow()} // 10.0.0.1:40001 to 192.0.2.80:443, ESTABLISHED, mark 7, zone 5
	owner := netip.MustParseAddr("10.71.3.1")
	for args, want := range map[string]bool{
		"":                             true,
		"protocol=tcp":                 true,
		"protocol=6 state=ESTABLISHED": true,
		"protocol=udp":                 false,
		"protocol=tcp state=CLOSE":     false,
		"family=ipv4 source=10.0.0.1":  true,
		"family=ipv6":                  false,
		"source=10.0.0.0/8 destination=192.0.2.80": true,
		"source=10.0.0.2":                          false,
		"destination=10.0.0.0/8":                   false,
		"mark=7 zone=5":                            true,
		"mark=0x7":                                 true,
		"mark=8":                                   false,
		"zone=0":                                   false,
		"owner=10.71.3.1":                          true,
		"owner=10.71.3.2":                          false,
	} {
		c, err := ParseConditions(strings.Fields(args))
		if err != nil || c.Match(&e, owner) != want {
			t.Errorf("%q: %v, %v; want %v", args, err == nil && c.Match(&e, owner), err, want)
		}
	}
	for _, arg := range []string{"colour=red", "tcp", "family=ax25", "protocol=nonsense", "state=OPEN", "source=x", "source=10.0.0.0/99", "mark=-1", "zone=x", "owner=me"} {
		if _, err := ParseConditions([]string{arg}); err == nil || !strings.Contains(err.Error(), arg) && !strings.Contains(err.Error(), "no") {
			t.Errorf("%q: %v", arg, err)
		}
	}
}
