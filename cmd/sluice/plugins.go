package main

import (
	"github.com/sluice-project/sluice/core/plugin"
	cachememory "github.com/sluice-project/sluice/plugins/cache-memory"
	filterbasic "github.com/sluice-project/sluice/plugins/filter-basic"
	sinkkernel "github.com/sluice-project/sluice/plugins/sink-kernel"
	sinkmulticast "github.com/sluice-project/sluice/plugins/sink-multicast"
	sourcemulticast "github.com/sluice-project/sluice/plugins/source-multicast"
	sourcenetlink "github.com/sluice-project/sluice/plugins/source-netlink"
)

// bundled are the plugins that this binary contains: a new one is a line here.
var bundled = []plugin.Definition{
	sourcenetlink.Definition,
	sourcemulticast.Definition,
	filterbasic.Definition,
	cachememory.Definition,
	sinkmulticast.Definition,
	sinkkernel.Definition,
}

// bundledNames are their names, as in "filter-basic".
func bundledNames() (names []string) {
	for _, d := range bundled {
		names = append(names, string(d.Kind)+"-"+d.Type)
	}
	return names
}
