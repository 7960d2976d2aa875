// Package trust says which programs of other vendors a runner may execute.
//
// A lock file, sluice.lock.hcl, names each plugin with the SHA-256 of its program,
// and maybe an ed25519 signature of the two:
//
//	plugin "filter-mark" {
//	  path   = "/usr/lib/sluice/plugins/sluice-filter-mark"
//	  sha256 = "…"
//	}
//
// `sluice plugin lock` writes it, core/pipeline reads it and judges each vendor's
// stage of a configuration by it, and core/runner executes the very bytes that it
// hashed, or nothing.
//
// The package knows the file and the signatures. It finds no plugins, and does not
// say what a plugin may do once it runs: that is core/confine's.
package trust
