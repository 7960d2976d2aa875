package ctnl

import (
	"fmt"
	"os"
	"strings"
)

// Settings is the directory of the kernel's settings of connection tracking.
// CAP_NET_ADMIN is enough to write them.
const Settings = "/proc/sys/net/netfilter"

// eventsSetting says of which flows the kernel reports events: 0 of none, 1 of
// all, 2 (the default) of those that begin while somebody listens. It is looked
// at when a flow begins (nf_ct_ecache_ext_add) and holds for its life.
const eventsSetting = Settings + "/nf_conntrack_events"

// liberalSetting makes the kernel pass TCP packets that are out of the window
// that it tracked (nf_conntrack_tcp_packet). It holds for all flows at once.
const liberalSetting = Settings + "/nf_conntrack_tcp_be_liberal"

// EnableEvents sets nf_conntrack_events to 1 in the calling thread's network
// namespace, so that all flows which begin from now on have events even if
// nobody listens just then, and returns what it was.
func EnableEvents() (before string, err error) { return setToOne("conntrack events", eventsSetting) }

// BeLiberal sets nf_conntrack_tcp_be_liberal to 1 in the calling thread's
// network namespace and returns what it was. Where packets of one connection
// pass several nodes, each sees only some of them, and no event tells it of the
// window: it would drop the connection as invalid when its packets come back.
func BeLiberal() (before string, err error) {
	return setToOne("liberal window tracking", liberalSetting)
}

func setToOne(what, setting string) (before string, err error) {
	b, err := os.ReadFile(setting)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if before = strings.TrimSpace(string(b)); before == "1" {
		return before, nil
	}
	if err := os.WriteFile(setting, []byte("1"), 0); err != nil {
		return before, fmt.Errorf("%s: %w", what, err)
	}
	return before, nil
}
