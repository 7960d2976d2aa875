package flow

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Conditions choose events: those that meet every one. None choose all. They are
// what `sluice dump` and `sluice tap` take as arguments.
type Conditions []func(e *Event, owner netip.Addr) bool

// Match tells whether an event meets all conditions. owner is the peer that it
// belongs to, which may be invalid.
func (c Conditions) Match(e *Event, owner netip.Addr) bool {
	for _, condition := range c {
		if !condition(e, owner) {
			return false
		}
	}
	return true
}

// ParseConditions reads arguments, each NAME=VALUE.
func ParseConditions(args []string) (c Conditions, err error) {
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		parse := conditions[name]
		if !ok || parse == nil {
			return nil, fmt.Errorf("%q chooses nothing: known are %s", arg, strings.Join(conditionNames(), ", "))
		}
		condition, err := parse(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", arg, err)
		}
		c = append(c, condition)
	}
	return c, nil
}

func conditionNames() (names []string) {
	for name := range conditions {
		names = append(names, name+"=")
	}
	slices.Sort(names)
	return names
}

type condition = func(e *Event, owner netip.Addr) bool

// conditions make a condition of the value of an argument NAME=VALUE.
var conditions = map[string]func(value string) (condition, error){
	"family": func(value string) (condition, error) {
		family, ok := map[string]uint8{"ipv4": IPv4, "ipv6": IPv6}[strings.ToLower(value)]
		if !ok {
			return nil, fmt.Errorf("%q is no family: write ipv4 or ipv6", value)
		}
		return func(e *Event, _ netip.Addr) bool { return e.Family == family }, nil
	},
	"protocol": func(value string) (condition, error) {
		protocol, err := ParseProtocol(value)
		return func(e *Event, _ netip.Addr) bool { return e.Protocol == protocol }, err
	},
	"state": func(value string) (condition, error) {
		state, err := ParseTCPState(value)
		return func(e *Event, _ netip.Addr) bool {
			return e.Protocol == TCP && e.Has(HasState) && e.State == state
		}, err
	},
	"source":      addressCondition(func(e *Event) [16]byte { return e.Original.Source }),
	"destination": addressCondition(func(e *Event) [16]byte { return e.Original.Destination }),
	"zone":        numberCondition(func(e *Event) uint64 { return uint64(e.Zone) }),
	"mark":        numberCondition(func(e *Event) uint64 { return uint64(e.Mark) }),
	"owner": func(value string) (condition, error) {
		want, err := netip.ParseAddr(value)
		return func(_ *Event, owner netip.Addr) bool { return owner == want }, err
	},
}

// addressCondition compares an address of the original tuple with an address
// or a prefix.
func addressCondition(of func(*Event) [16]byte) func(string) (condition, error) {
	return func(value string) (condition, error) {
		if !strings.Contains(value, "/") {
			address, err := netip.ParseAddr(value)
			return func(e *Event, _ netip.Addr) bool { return Address(e.Family, of(e)) == address }, err
		}
		prefix, err := netip.ParsePrefix(value)
		return func(e *Event, _ netip.Addr) bool { return prefix.Contains(Address(e.Family, of(e))) }, err
	}
}

func numberCondition(of func(*Event) uint64) func(string) (condition, error) {
	return func(value string) (condition, error) {
		want, err := strconv.ParseUint(value, 0, 32)
		return func(e *Event, _ netip.Addr) bool { return of(e) == want }, err
	}
}
