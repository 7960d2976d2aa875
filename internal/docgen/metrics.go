package main

import (
	"fmt"
	"strings"

	"github.com/sluice-project/sluice/internal/observe"
)

// MetricsTable lists the metrics that do not depend on plugins.
func MetricsTable() string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | what |\n| --- | --- | --- | --- |\n")
	for _, m := range observe.Metrics {
		labels := "–"
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, labels, cell(m.Help))
	}
	b.WriteString("\n")
	return b.String()
}
