package cachememory

import "github.com/sluice-project/sluice/core/flow"

// A filter chooses the flows of a dump: those that meet every condition.
type filter flow.Conditions

func (f filter) accepts(one *copied) bool { return flow.Conditions(f).Match(&one.event, one.owner) }

// parseFilter reads the arguments of a dump, each NAME=VALUE.
func parseFilter(args []string) (filter, error) {
	f, err := flow.ParseConditions(args)
	return filter(f), err
}
