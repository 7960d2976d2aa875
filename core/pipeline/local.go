package pipeline

import (
	"context"
	"fmt"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// Local returns a Catalog of plugins that are linked into this process. The
// runner does not use it (a plugin's code runs in the plugin's process), but
// tests and generators do.
func Local(definitions ...plugin.Definition) Catalog { return local(definitions) }

type local []plugin.Definition

func (l local) find(kind plugin.Kind, typ string) (plugin.Definition, error) {
	for _, d := range l {
		if d.Kind == kind && d.Type == typ {
			return d, nil
		}
	}
	return plugin.Definition{}, fmt.Errorf("%w: %s-%s", ErrUnknownPlugin, kind, typ)
}

func (l local) Describe(_ context.Context, kind plugin.Kind, typ string) (*stagepb.Description, error) {
	d, err := l.find(kind, typ)
	if err != nil {
		return nil, err
	}
	return plugin.Describe(d), nil
}

func (l local) Configure(_ context.Context, kind plugin.Kind, typ string, config []byte) (*stagepb.Configured, error) {
	d, err := l.find(kind, typ)
	if err != nil {
		return nil, err
	}
	_, reply := plugin.Configure(d, config)
	return reply, nil
}

func (l local) Bundled(plugin.Kind, string) bool { return true }

func (l local) Types(kind plugin.Kind) (types []string) {
	for _, d := range l {
		if d.Kind == kind {
			types = append(types, d.Type)
		}
	}
	return types
}

// Program implements Catalog. All are a part of this process.
func (l local) Program(kind plugin.Kind, typ string) (path, sum string, err error) {
	_, err = l.find(kind, typ)
	return "", "", err
}
