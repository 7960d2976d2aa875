package conntrackdconf

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSettings(t *testing.T) {
	for text, want := range map[string]Settings{
		"General { }": {Socket: defaultSocket, LockFile: defaultLock, InternalCache: true, ExternalCache: true},
		"Stats { LogFile on } General { LockFile /l UNIX { Path /p Backlog 20 } }": {
			Socket: "/p", LockFile: "/l", Stats: true, InternalCache: true, ExternalCache: true,
		},
		"Sync { Mode NOTRACK { DisableInternalCache on DisableExternalCache off } Multicast { Interface a } UDP { Interface b } Multicast Default { Interface c } }": {
			Socket: defaultSocket, LockFile: defaultLock, Sync: true, ExternalCache: true,
			Links: []Link{{"Multicast", "a"}, {"UDP", "b"}, {"Multicast", "c"}}, Active: 2,
		},
		"Sync { Mode NOTRACK { } CacheWriteThrough On Multicast { Interface a } }": {
			Socket: defaultSocket, LockFile: defaultLock, Sync: true, InternalCache: true, Links: []Link{{"Multicast", "a"}},
		},
	} {
		file, diags := Parse("conntrackd.conf", []byte(text+"\n"))
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if diff := cmp.Diff(want, file.Settings()); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}
