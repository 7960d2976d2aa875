package main

import "github.com/sluice-project/sluice/internal/bundled"

// bundledNames are the names of the plugins that this binary contains, as in
// "filter-basic".
func bundledNames() (names []string) {
	for _, d := range bundled.Definitions {
		names = append(names, string(d.Kind)+"-"+d.Type)
	}
	return names
}
