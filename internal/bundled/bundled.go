// Package bundled lists the plugins that come with sluice. A new plugin is one
// line here: the binary, the documentation's reference and the tests of every
// example know it from then on.
//
// Core packages must not import it, nor any plugin: they meet plugins through
// the control protocol alone.
package bundled

import (
	"github.com/sluice-project/sluice/core/plugin"
	cachememory "github.com/sluice-project/sluice/plugins/cache-memory"
	filterbasic "github.com/sluice-project/sluice/plugins/filter-basic"
	sinkkernel "github.com/sluice-project/sluice/plugins/sink-kernel"
	sinklog "github.com/sluice-project/sluice/plugins/sink-log"
	sinkmulticast "github.com/sluice-project/sluice/plugins/sink-multicast"
	sinktcp "github.com/sluice-project/sluice/plugins/sink-tcp"
	sinkudp "github.com/sluice-project/sluice/plugins/sink-udp"
	sourcemulticast "github.com/sluice-project/sluice/plugins/source-multicast"
	sourcenetlink "github.com/sluice-project/sluice/plugins/source-netlink"
	sourcereplay "github.com/sluice-project/sluice/plugins/source-replay"
	sourcetcp "github.com/sluice-project/sluice/plugins/source-tcp"
	sourceudp "github.com/sluice-project/sluice/plugins/source-udp"
)

// Definitions are the bundled plugins: sources, filters, caches, sinks.
var Definitions = []plugin.Definition{
	sourcenetlink.Definition,
	sourcemulticast.Definition,
	sourceudp.Definition,
	sourcetcp.Definition,
	sourcereplay.Definition,
	filterbasic.Definition,
	cachememory.Definition,
	sinkmulticast.Definition,
	sinkudp.Definition,
	sinktcp.Definition,
	sinkkernel.Definition,
	sinklog.Definition,
}
