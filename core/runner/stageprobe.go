package runner

import (
	"log/slog"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
)

// probed gives the stages of probes their users.
var probed users

// StageProbe returns what a probe of a stage of a pipeline is started by: the same
// program, found in the same way and confined by the same rules as a runner's.
func StageProbe(p Plugins, conf *pipeline.Stage, log *slog.Logger) (ProbeConfig, error) {
	path, args, err := p.command(conf.Kind, conf.Type, conf.Address())
	if err != nil {
		return ProbeConfig{}, err
	}
	c := ProbeConfig{
		Path: path, Args: args, Kind: conf.Kind, Type: conf.Type, Log: log,
		Input: conf.Kind != plugin.KindSource, name: conf.Address(),
	}
	if conf.Kind != plugin.KindSink {
		c.Outputs = 1
	}
	switch {
	case !confined:
	case p.bundled(conf.Kind, conf.Type):
		c.rules = bundledRules(&probed, conf.Address(), conf.Traits.GetNeeds())
	default:
		c.vendors = conf
		c.rules, err = vendorRules(&probed, conf.Address(), conf.Grant)
	}
	return c, err
}

// Confined returns what a probe of a vendor's program is started by that is to run
// as in a pipeline: as a copy, under the rules of a grant. Nothing need be locked: whoever
// names a program to probe means it.
func (c ProbeConfig) Confined(grant *pipeline.Grant) (_ ProbeConfig, err error) {
	if !confined {
		return c, nil
	}
	c.vendors = &pipeline.Stage{Unlocked: true}
	c.rules, err = vendorRules(&probed, "probe", grant)
	return c, err
}
