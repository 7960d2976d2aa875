package runner

import (
	"testing"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// A source is told of the filters right below it, up to whatever else there is.
func TestScreensOfASource(t *testing.T) {
	one, two, three := &stagepb.Screen{}, &stagepb.Screen{}, &stagepb.Screen{}
	for name, c := range map[string]struct {
		below []*stagepb.Traits // filters
		cache int               // a cache stands before this one
		want  []*stagepb.Screen
	}{
		"none":            {nil, -1, nil},
		"two":             {[]*stagepb.Traits{{Screen: one}, {Screen: two}}, -1, []*stagepb.Screen{one, two}},
		"a silent filter": {[]*stagepb.Traits{{Screen: one}, nil, {Screen: three}}, -1, []*stagepb.Screen{one}},
		"below a cache":   {[]*stagepb.Traits{{Screen: one}, {Screen: two}}, 1, []*stagepb.Screen{one}},
	} {
		source := &stage{conf: &pipeline.Stage{Kind: plugin.KindSource}}
		last := source
		add := func(kind plugin.Kind, traits *stagepb.Traits) {
			next := &stage{conf: &pipeline.Stage{Kind: kind, Traits: traits}}
			last.below = append(last.below, next)
			if kind != plugin.KindSink {
				last = next
			}
		}
		for i, traits := range c.below {
			if i == c.cache {
				add(plugin.KindCache, nil)
			}
			add(plugin.KindFilter, traits)
		}
		add(plugin.KindSink, nil)
		add(plugin.KindSink, nil)
		got := source.screens()
		if len(got) != len(c.want) {
			t.Fatalf("%s: %d screens", name, len(got))
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: another screen at %d", name, i)
			}
		}
		if len(source.below) == 1 && source.below[0].screens() != nil {
			t.Errorf("%s: a filter is told of filters", name)
		}
	}
}
