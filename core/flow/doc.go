// Package flow is what travels through a pipeline: flows of the kernel's
// connection tracking, the events about them, and batches of events in the
// binary form in which they pass from one stage to the next.
//
// A source decodes what the kernel or a peer tells into an Event and appends it
// to a Builder; the bytes of one Builder are one packet on the edge to the next
// stage. There DecodeBatch checks them once, and a Cursor then reads event by
// event without allocating and without failing. docs/batch.md has the layout
// byte by byte, so that a plugin may be written in any language.
//
// A Flow is flat: hot attributes are fields of a head without pointers, with a
// mask (Field) that tells absent from zero; rare ones stand in a tail
// (Attributes), where types that this version doesn't know are kept and passed
// on. Merge is the one policy by which an update changes what is known. A Key
// is a flow's identity. String and MarshalJSON are for people and programs.
//
// The package knows nothing of netlink, of NOTRACK's wire, of processes or of
// plugins; internal/ctnl and internal/notrack translate.
package flow
