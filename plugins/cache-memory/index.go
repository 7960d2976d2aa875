package cachememory

// An index finds slots by hash: open addressing with linear probing, and
// deletion by shifting back, so that it needs no tombstones of its own. The
// hash stands beside the slot: probing touches no entry but the one looked for,
// and growing touches none.
type index struct {
	buckets []bucket // a power of two, or none
	used    int
	let     int // bytes of arrays that were let go of when it grew
}

type bucket struct{ hash, slot uint32 } // slot 0: empty

const (
	bucketSize = 8 // bytes
	minBuckets = 1024
)

func (x *index) mask() uint32 { return uint32(len(x.buckets) - 1) }

// first returns where the probing for a hash begins, after its next.
func (x *index) first(hash uint32) uint32 { return hash & x.mask() }
func (x *index) after(i uint32) uint32    { return (i + 1) & x.mask() }

func (x *index) bucket(i uint32) bucket {
	if len(x.buckets) == 0 {
		return bucket{}
	}
	return x.buckets[i]
}

// add adds a slot, growing above a load of three quarters.
func (x *index) add(hash, slot uint32) {
	if 4*(x.used+1) > 3*len(x.buckets) {
		x.grow()
	}
	x.put(bucket{hash, slot})
	x.used++
}

func (x *index) put(b bucket) {
	i := x.first(b.hash)
	for x.buckets[i].slot != 0 {
		i = x.after(i)
	}
	x.buckets[i] = b
}

func (x *index) grow() {
	old := x.buckets
	x.let += bucketSize * len(old)
	x.buckets = make([]bucket, max(minBuckets, 2*len(old)))
	for _, b := range old {
		if b.slot != 0 {
			x.put(b)
		}
	}
}

// remove removes a slot, which must be there.
func (x *index) remove(hash, slot uint32) {
	hole := x.first(hash)
	for x.buckets[hole].slot != slot {
		hole = x.after(hole)
	}
	for i := x.after(hole); x.buckets[i].slot != 0; i = x.after(i) {
		// What probing reaches only across the hole moves into it.
		if home := x.first(x.buckets[i].hash); (i-home)&x.mask() >= (i-hole)&x.mask() {
			x.buckets[hole], hole = x.buckets[i], i
		}
	}
	x.buckets[hole] = bucket{}
	x.used--
}

func (x *index) bytes() int { return bucketSize * len(x.buckets) }
