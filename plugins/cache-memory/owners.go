package cachememory

import "net/netip"

// An owner is a node: this one (index 0, no address), or a peer by its address
// on the link.
type owner struct {
	address netip.Addr
	held    [classes]int
	covered uint32 // begin of this node's replay that named one of its flows
	replay  replay // the replay of this owner that is under way
	ended   uint64 // id of the last replay that ended or was cancelled
}

// maxOwners bounds the list against forged addresses.
const maxOwners = 1024

// owners are all nodes whose flows are here, or were.
type owners struct {
	list  []owner
	index map[netip.Addr]uint16
	next  int // where the search for one to forget goes on
}

func newOwners() owners {
	return owners{list: make([]owner, 1), index: map[netip.Addr]uint16{{}: 0}}
}

// of returns the index of a node, making one where it is new. It says false if
// there are too many nodes with flows.
func (o *owners) of(address netip.Addr) (uint16, bool) {
	if i, ok := o.index[address]; ok {
		return i, true
	}
	i := len(o.list)
	if i < maxOwners {
		o.list = append(o.list, owner{})
	} else if i = o.forget(); i == 0 {
		return 0, false
	}
	o.list[i] = owner{address: address}
	o.index[address] = uint16(i)
	return uint16(i), true
}

// forget forgets a peer without entries and without a replay, and returns its
// index; 0 if there is none. Tombstones may name it still: nobody asks them.
func (o *owners) forget() int {
	for range maxOwners {
		o.next = o.next%(maxOwners-1) + 1
		if one := &o.list[o.next]; one.held == [classes]int{} && !one.replay.active() {
			delete(o.index, one.address)
			return o.next
		}
	}
	return 0
}
