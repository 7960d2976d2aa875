package ctnl

import (
	"fmt"
	"os"
	"strings"
)

// eventsSetting says of which flows the kernel reports events: 0 of none, 1 of
// all, 2 (the default) of those that begin while somebody listens. It is looked
// at when a flow begins (nf_ct_ecache_ext_add) and holds for its life.
const eventsSetting = "/proc/sys/net/netfilter/nf_conntrack_events"

// EnableEvents sets nf_conntrack_events to 1 in the calling thread's network
// namespace, so that all flows which begin from now on have events even if
// nobody listens just then, and returns what it was.
func EnableEvents() (before string, err error) {
	b, err := os.ReadFile(eventsSetting)
	if err != nil {
		return "", fmt.Errorf("conntrack events: %w", err)
	}
	if before = strings.TrimSpace(string(b)); before == "1" {
		return before, nil
	}
	if err := os.WriteFile(eventsSetting, []byte("1"), 0); err != nil {
		return before, fmt.Errorf("conntrack events: %w", err)
	}
	return before, nil
}
