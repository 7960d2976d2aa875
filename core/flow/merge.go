package flow

// Merge merges the update u into f, which has the same key:
//
//  1. What is present in u replaces what f has; what is absent from u stays.
//     (Absent says nothing: the kernel sends labels only when they change and
//     the master only with NEW.)
//  2. The reply tuple and its zone are one attribute.
//  3. Attributes of the tail are replaced whole, each by its type, those of
//     unknown types too.
//  4. A tail that became longer than a record can carry is u's alone, so that
//     no sequence of updates makes a flow that can't be passed on.
//
// Merge judges nothing: whether u should be merged at all (its owner, its ID, a
// NEW that replaces) is the caller's to know. The new tail is built in buf[:0],
// which must not overlap either tail, and returned for reuse.
func (f *Flow) Merge(u *Flow, buf []byte) []byte {
	if u.Has(HasReply) {
		f.Reply, f.ZoneReply = u.Reply, u.ZoneReply
	}
	if u.Has(HasStatus) {
		f.Status = u.Status
	}
	if u.Has(HasTimeout) {
		f.Timeout = u.Timeout
	}
	if u.Has(HasMark) {
		f.Mark = u.Mark
	}
	if u.Has(HasID) {
		f.ID = u.ID
	}
	if u.Has(HasState) {
		f.State = u.State
	}
	if u.Has(HasWindowScale) {
		f.WindowScale = u.WindowScale
	}
	if u.Has(HasTCPFlags) {
		f.TCPFlags = u.TCPFlags
	}
	f.Present |= u.Present
	if len(u.Tail) == 0 {
		return buf
	}
	tail := Attributes(append(buf[:0], u.Tail...))
	news := u.Tail.Lookup()
	for t, v := range f.Tail.All() {
		if _, ok := news.Get(t); !ok {
			tail = tail.Append(t, v)
		}
	}
	if len(tail) > MaxTail {
		tail = tail[:len(u.Tail)]
	}
	f.Tail = tail
	return tail
}
