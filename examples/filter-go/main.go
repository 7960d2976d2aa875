// Sluice-filter-markmask is a filter that changes what passes: it clears bits of
// the mark that mean something on this firewall alone.
package main

import (
	"fmt"
	"os"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// definition declares the plugin.
var definition = plugin.Definition{
	Kind: plugin.KindFilter, Type: "markmask", Summary: "Clears bits of marks.",
	Config: func() any { return &Filter{} },
}

// Filter is the block in the pipeline, and the stage.
type Filter struct {
	Keep uint32 `hcl:"keep" doc:"The bits of the mark that stay."`
}

// Filter is called for one event after another. What needs no change passes byte
// for byte; Rewrite encodes the event anew, unknown attributes and all.
func (f *Filter) Filter(e *flow.Event) plugin.Verdict {
	if e.IsExpectation() || !e.Has(flow.HasMark) || e.Mark&^f.Keep == 0 {
		return plugin.Pass
	}
	e.Mark &= f.Keep
	return plugin.Rewrite
}

func main() {
	err := plugin.Serve(definition)
	fmt.Fprintln(os.Stderr, err) // it was not started by a runner
	os.Exit(1)
}
