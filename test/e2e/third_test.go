package e2e

import (
	"testing"

	"github.com/sluice-project/sluice/internal/testbed"
)

// One of three nodes takes over what another carried, while the third goes on
// with its own. The one that stepped back has all of it still, stale: it says so
// when it is asked, and forgets it later. Nobody may take that for the truth.
func TestThirdNodeKnowsWhoCarriesWhat(t *testing.T) {
	for name, conntrackds := range trios {
		t.Run(name, func(t *testing.T) {
			c := newTrio(t, conntrackds)
			talks := c.talk(t)
			testbed.Eventually(t, patience, c.informed)
			first, third := c.members[0], c.members[2]

			c.takeOver(t, 0, third, talks)
			third.request(t) // a takeover forgets what was committed, all nodes'
			testbed.Eventually(t, patience, c.informed)
			first.bulk(t) // stale
			testbed.Eventually(t, patience, c.informed)
			first.purge(t)
			testbed.Eventually(t, patience, c.known)
			c.each(t, (*member).request)
			testbed.Eventually(t, patience, c.known)

			c.takeOver(t, 0, first, talks)
			first.request(t)
			testbed.Eventually(t, patience, c.known)
			for _, talk := range talks {
				if err := talk.Finish(patience); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// talk begins conversations through each gateway.
func (c *trio) talk(t *testing.T) (talks []*testbed.Conversation) {
	t.Helper()
	for i := range 24 {
		to := c.Target(i % 3).Prefixes()[i/3%2]
		config := testbed.ConversationConfig{To: testbed.At(to), Rate: 4, Seed: uint64(i)}
		if i < 6 {
			config.Rate = 1 << 20
		}
		talks = append(talks, c.Client.MustConverse(t, config))
	}
	progress(t, talks)
	return talks
}

// progress waits until something has come through each conversation.
func progress(t *testing.T, talks []*testbed.Conversation) {
	t.Helper()
	var conditions []func() error
	for _, talk := range talks {
		conditions = append(conditions, talk.Progress(1))
	}
	for _, condition := range conditions {
		testbed.Eventually(t, patience, condition)
	}
}

// takeOver moves a gateway to a member and tells it.
func (c *trio) takeOver(t *testing.T, gateway int, to *member, talks []*testbed.Conversation) {
	t.Helper()
	if err := c.MoveTo(gateway, to.fw); err != nil {
		t.Fatal(err)
	}
	if to.sluice != nil {
		t.Log(must[string](t)(to.sluice.Sluice("role", "primary")))
	} else {
		for _, option := range []string{"-c", "-f", "-R", "-B"} {
			to.conntrackd.MustCtl(t, option)
		}
	}
	progress(t, talks)
}

// purge has a member's kernel forget all flows, as it does some time after it
// stepped back.
func (m *member) purge(t *testing.T) { m.tell(t, "-F", "flush", "kernel") }

// known is informed, but members may know of more: conntrackd tells nobody what
// it purged.
func (c *trio) known() error {
	if c.members[0].sluice != nil {
		return c.informed()
	}
	return c.compare(func(want, got testbed.Table) testbed.Table {
		return got.Where(func(f testbed.Flow) bool { _, wanted := want[f.Key]; return wanted })
	})
}
