package pipeline

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// checkPipelines checks what no plugin can see alone: each pipeline's shape,
// then how the pipelines go together.
func checkPipelines(drafts []*draft) (diags hcl.Diagnostics) {
	for _, d := range drafts {
		diags = append(diags, checkOrder(d)...)
		diags = append(diags, checkNames(d)...)
	}
	diags = append(diags, checkScopes(drafts)...)
	diags = append(diags, checkLinks(drafts)...)
	return append(diags, checkWriters(drafts)...)
}

// checkOrder: one source, then filters and caches, then sinks.
func checkOrder(d *draft) (diags hcl.Diagnostics) {
	var source, sink *stageDraft
	for i, s := range d.stages {
		switch s.Kind {
		case plugin.KindSource:
			switch {
			case source != nil:
				diags = append(diags, failure("Several sources", fmt.Sprintf(
					"The pipeline %q has a source already, %s at %s. Write a pipeline for each source.", d.name, source.label(), source.Range), &s.Range))
			case i > 0:
				diags = append(diags, outOfOrder(s, "A pipeline begins with its source: write this block first."))
			}
			if source == nil {
				source = s
			}
		case plugin.KindSink:
			sink = s
		default:
			if sink != nil {
				diags = append(diags, outOfOrder(s, fmt.Sprintf(
					"Nothing flows on from a sink: write this %s above %s at %s.", s.Kind, sink.label(), sink.Range)))
			}
		}
	}
	if source == nil {
		diags = append(diags, failure("No source", fmt.Sprintf(
			"The pipeline %q has no source, so nothing would ever reach its other stages.", d.name), &d.header))
	}
	if sink == nil {
		diags = append(diags, failure("No sink", fmt.Sprintf(
			"The pipeline %q has no sink, so what its source sends would go nowhere.", d.name), &d.header))
	}
	return diags
}

func outOfOrder(s *stageDraft, detail string) *hcl.Diagnostic {
	return failure("Stage out of order", detail, &s.Range)
}

// checkNames: an address names one stage.
func checkNames(d *draft) (diags hcl.Diagnostics) {
	seen := map[string]*stageDraft{}
	for _, s := range d.stages {
		other := seen[s.Address()]
		if other == nil {
			seen[s.Address()] = s
			continue
		}
		diags = append(diags, failure("Duplicate stage", fmt.Sprintf(
			"The address %s is taken by %s at %s. Give one of them another name, as in: name = %q.",
			s.Address(), other.label(), other.Range, s.Name+"-2"), &s.nameRange))
	}
	return diags
}

// each calls f for every stage whose plugin had no complaint.
func each(drafts []*draft, f func(d *draft, s *stageDraft)) {
	for _, d := range drafts {
		for _, s := range d.stages {
			if s.Traits != nil {
				f(d, s)
			}
		}
	}
}

// checkScopes: a scope is another pipeline, whose source reads the table that
// the sink writes to.
func checkScopes(drafts []*draft) (diags hcl.Diagnostics) {
	var names []string
	byName := map[string]*draft{}
	for _, d := range drafts {
		names = append(names, d.name)
		byName[d.name] = d
	}
	each(drafts, func(d *draft, s *stageDraft) {
		scope := s.Traits.Scope
		others := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == d.name })
		switch other := byName[scope]; {
		case scope == "":
		case other == nil:
			diags = append(diags, failure("Unknown pipeline", fmt.Sprintf("The scope %q names no pipeline.%s",
				scope, didYouMean(scope, others, " Others are: "+cmp.Or(list(others), "none")+".")), s.at("scope")))
		case other == d:
			diags = append(diags, failure("Scope names its own pipeline", fmt.Sprintf(
				"The scope of a sink is the pipeline whose source and filters say what a purge may delete, "+
					"usually the one that sends this node's flows; %q is the sink's own.", scope), s.at("scope")))
		default:
			diags = append(diags, checkScopeSource(other, s)...)
		}
	})
	return diags
}

func checkScopeSource(scope *draft, sink *stageDraft) hcl.Diagnostics {
	for _, s := range scope.stages {
		switch {
		case s.Kind != plugin.KindSource || s.Traits == nil:
		case !s.Traits.Kernel:
			return hcl.Diagnostics{failure("Scope without the kernel's table", fmt.Sprintf(
				"A purge asks the source of the pipeline %q for what is in the kernel's table, but %s does not read that.",
				scope.name, s.label()), sink.at("scope"))}
		case s.Traits.Netns != sink.Traits.Netns:
			return hcl.Diagnostics{failure("Scope in another network namespace", fmt.Sprintf(
				"A purge would read the table of %s and delete from that of %s.",
				namespace(s.Traits), namespace(sink.Traits)), sink.at("scope"))}
		}
	}
	return nil
}

func namespace(t *stagepb.Traits) string {
	if t.Netns == "" {
		return "the runner's network namespace"
	}
	return t.Netns
}

// checkLinks: what is received is received once, and a source that has peers
// asked for everything needs a sink through which they are asked.
func checkLinks(drafts []*draft) (diags hcl.Diagnostics) {
	type link struct {
		kind        plugin.Kind
		name, netns string
	}
	first := map[link]*stageDraft{}
	each(drafts, func(d *draft, s *stageDraft) {
		key := link{s.Kind, s.Traits.Link, s.Traits.Netns}
		other := first[key]
		switch {
		case key.name == "":
		case other == nil:
			first[key] = s
		case s.Kind == plugin.KindSource:
			diags = append(diags, failure("Duplicate link", fmt.Sprintf(
				"%s at %s receives from %s already: a node reads what its peers send once, and shares it out in one pipeline.",
				other.Address(), other.Range, key.name), &s.Range))
		case s.Kind == plugin.KindSink:
			diags = append(diags, warning("Several transmitters on one link", fmt.Sprintf(
				"%s at %s sends on %s already. Peers take the two for two nodes at one address, and answer requests of both.",
				other.Address(), other.Range, key.name), &s.Range))
		}
	})
	each(drafts, func(d *draft, s *stageDraft) {
		if s.Kind != plugin.KindSource || s.Traits.Link == "" || !s.Traits.RequestResync {
			return
		}
		if first[link{plugin.KindSink, s.Traits.Link, s.Traits.Netns}] == nil {
			diags = append(diags, warning("Peers can't be asked", fmt.Sprintf(
				"%s wants its peers to send all they have when it starts, but no sink sends on %s, so they are never asked.",
				s.Address(), s.Traits.Link), &s.Range))
		}
	})
	return diags
}

// checkWriters: the kernel has one lock for all that write to its tables.
func checkWriters(drafts []*draft) (diags hcl.Diagnostics) {
	first := map[string]*stageDraft{}
	each(drafts, func(d *draft, s *stageDraft) {
		if s.Kind != plugin.KindSink || !s.Traits.Kernel {
			return
		}
		if other := first[s.Traits.Netns]; other != nil {
			diags = append(diags, warning("Several kernel writers", fmt.Sprintf(
				"%s at %s writes to the table of %s already. The kernel lets one write at a time, and the two may overwrite each other's flows.",
				other.Address(), other.Range, namespace(s.Traits)), &s.Range))
			return
		}
		first[s.Traits.Netns] = s
	})
	return diags
}
