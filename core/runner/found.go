package runner

import (
	"github.com/sluice-project/sluice/core/plugin"
)

// A Found plugin is a vendor's executable that a runner would start.
type Found struct {
	Kind plugin.Kind
	Type string
	Path string
}

// Found returns the vendors' plugins, by kind in the order of a pipeline, then by
// type. Of two of one name that in the first folder counts.
func (p Plugins) Found() (found []Found) {
	for _, kind := range []plugin.Kind{plugin.KindSource, plugin.KindFilter, plugin.KindCache, plugin.KindSink} {
		for _, typ := range p.types(kind) {
			if path, err := p.Locate(kind, typ); err == nil && !p.bundled(kind, typ) {
				found = append(found, Found{kind, typ, path})
			}
		}
	}
	return found
}

// Locate returns the executable of a vendor's plugin. The error wraps
// pipeline.ErrUnknownPlugin if there is none.
func (p Plugins) Locate(kind plugin.Kind, typ string) (string, error) {
	p.Bundled = nil
	path, _, err := p.command(kind, typ, "")
	return path, err
}

// Bundles says whether a plugin is a part of this executable.
func (p Plugins) Bundles(kind plugin.Kind, typ string) bool { return p.bundled(kind, typ) }
