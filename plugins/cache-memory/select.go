package cachememory

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-project/sluice/core/flow"
)

// A filter chooses the flows of a dump: those that pass every condition.
type filter []func(*copied) bool

func (f filter) accepts(one *copied) bool {
	for _, condition := range f {
		if !condition(one) {
			return false
		}
	}
	return true
}

// conditions make a condition of the value of an argument NAME=VALUE.
var conditions = map[string]func(value string) (func(*copied) bool, error){
	"family": func(value string) (func(*copied) bool, error) {
		family, ok := map[string]uint8{"ipv4": flow.IPv4, "ipv6": flow.IPv6}[strings.ToLower(value)]
		if !ok {
			return nil, fmt.Errorf("%q is no family: write ipv4 or ipv6", value)
		}
		return func(one *copied) bool { return one.event.Family == family }, nil
	},
	"protocol": func(value string) (func(*copied) bool, error) {
		protocol, err := flow.ParseProtocol(value)
		return func(one *copied) bool { return one.event.Protocol == protocol }, err
	},
	"state": func(value string) (func(*copied) bool, error) {
		state, err := flow.ParseTCPState(value)
		return func(one *copied) bool {
			return one.event.Protocol == flow.TCP && one.event.Has(flow.HasState) && one.event.State == state
		}, err
	},
	"source": addressCondition(func(one *copied) [16]byte { return one.event.Original.Source }),
	"destination": addressCondition(func(one *copied) [16]byte {
		return one.event.Original.Destination
	}),
	"zone": numberCondition(func(one *copied) uint64 { return uint64(one.event.Zone) }),
	"mark": numberCondition(func(one *copied) uint64 { return uint64(one.event.Mark) }),
	"owner": func(value string) (func(*copied) bool, error) {
		owner, err := netip.ParseAddr(value)
		return func(one *copied) bool { return one.owner == owner }, err
	},
}

// addressCondition compares an address of the original tuple with an address
// or a prefix.
func addressCondition(of func(*copied) [16]byte) func(string) (func(*copied) bool, error) {
	return func(value string) (func(*copied) bool, error) {
		if !strings.Contains(value, "/") {
			address, err := netip.ParseAddr(value)
			return func(one *copied) bool { return flow.Address(one.event.Family, of(one)) == address }, err
		}
		prefix, err := netip.ParsePrefix(value)
		return func(one *copied) bool { return prefix.Contains(flow.Address(one.event.Family, of(one))) }, err
	}
}

func numberCondition(of func(*copied) uint64) func(string) (func(*copied) bool, error) {
	return func(value string) (func(*copied) bool, error) {
		want, err := strconv.ParseUint(value, 0, 32)
		return func(one *copied) bool { return of(one) == want }, err
	}
}

// parseFilter reads the arguments of a dump, each NAME=VALUE.
func parseFilter(args []string) (f filter, err error) {
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		condition := conditions[name]
		if !ok || condition == nil {
			var known []string
			for name := range conditions {
				known = append(known, name+"=")
			}
			slices.Sort(known)
			return nil, fmt.Errorf("%q chooses nothing: known are %s", arg, strings.Join(known, ", "))
		}
		accepts, err := condition(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", arg, err)
		}
		f = append(f, accepts)
	}
	return f, nil
}
