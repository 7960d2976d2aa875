package console

import (
	"fmt"
	"strings"

	"github.com/sluice-project/sluice/core/control"
)

// permissions shows what each stage may do, but to compute, and to talk to the
// runner and its neighbours.
func (s *screen) permissions(pipelines []control.PipelineStatus) {
	t := &table{titles: []string{"STAGE", "USER", "CONFINED BY", "NETWORK", "CAPABILITIES", "FILES"}}
	for _, p := range pipelines {
		for _, stage := range p.Stages {
			if may := stage.May; may != nil {
				t.add(permissionsRow(stage.Address, may)...)
			}
		}
	}
	if len(t.rows) == 0 {
		return
	}
	s.printf("\n%s\n", s.paint("what stages may do", bold))
	s.table(t)
}

func permissionsRow(address string, may *control.Permissions) []cell {
	network := "no"
	if may.Network {
		network = "yes"
	}
	row := cells(cut(address, maxStage), may.User, "", network, orNone(strings.Join(may.Capabilities, " ")), orNone(files(may)))
	row[2] = confinement(may)
	return row
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// confinement names what keeps a stage to it, and whether something does not
// that could.
func confinement(may *control.Permissions) cell {
	var by []string
	if may.Seccomp {
		by = append(by, "seccomp")
	}
	if may.Landlock > 0 {
		by = append(by, fmt.Sprintf("landlock %d", may.Landlock))
	}
	c := cell{text: orNone(strings.Join(by, ", "))}
	if len(by) < 2 || !may.NoNewPrivileges {
		c.style = yellow
	}
	return c
}

func files(may *control.Permissions) string {
	var parts []string
	if len(may.Write) > 0 {
		parts = append(parts, "writes "+strings.Join(may.Write, " "))
	}
	if len(may.Read) > 0 {
		parts = append(parts, "reads "+strings.Join(may.Read, " "))
	}
	return strings.Join(parts, ", ")
}
