package trust

import (
	"crypto/ed25519"
	"fmt"
)

// A Problem is why a program may not be executed. "" is that it may.
type Problem string

// The problems, by the names that they have in JSON.
const (
	NoLock       Problem = "no lock file"
	NotLocked    Problem = "not locked"
	Changed      Problem = "changed"
	NotSigned    Problem = "not signed"
	BadSignature Problem = "bad signature"
)

// A Policy is what a configuration trusts.
type Policy struct {
	File string              // where the lock file is looked for; "": nowhere
	Lock *Lock               // nil: there is none
	Keys []ed25519.PublicKey // one of which must have signed; none: signatures are not looked at
}

// Judge says whether a plugin's program of a SHA-256 may be executed.
func (p *Policy) Judge(plugin, sum string) Problem {
	if p.Lock == nil {
		return NoLock
	}
	e, named := p.Lock.Entries[plugin]
	switch {
	case !named:
		return NotLocked
	case e.SHA256 != sum:
		return Changed
	case len(p.Keys) == 0 || e.SignedBy(p.Keys):
		return ""
	case e.Signature == nil:
		return NotSigned
	}
	return BadSignature
}

// Explain says in a sentence why a program, at a path, may not be executed, and what
// in the lock file says so.
func (p *Policy) Explain(why Problem, plugin, path, sum string) string {
	var e Entry
	if p.Lock != nil {
		e = p.Lock.Entries[plugin]
	}
	at := fmt.Sprintf("%s line %d", p.File, e.Range.Start.Line)
	switch {
	case why == NoLock && p.File == "":
		return fmt.Sprintf("%s is another vendor's program, and there is no lock file that says that it may run.", path)
	case why == NoLock:
		return fmt.Sprintf("%s is another vendor's program, and there is no lock file %s that says that it may run.", path, p.File)
	case why == NotLocked:
		return fmt.Sprintf("%s is another vendor's program, and the lock file %s does not name %s.", path, p.File, plugin)
	case why == Changed:
		return fmt.Sprintf("%s has the SHA-256 %s, but %s says %s.", path, sum, at, e.SHA256)
	case why == NotSigned:
		return fmt.Sprintf("%s has no signature of %s, and lock_keys of the runner block demand one.", at, plugin)
	case why == BadSignature:
		return fmt.Sprintf("The signature of %s at %s is of none of lock_keys of the runner block.", plugin, at)
	}
	return ""
}

// Unsigned says whether a signature would solve a problem.
func (why Problem) Unsigned() bool { return why == NotSigned || why == BadSignature }
