package pipeline

import (
	"os"

	"github.com/hashicorp/hcl/v2"
)

// Expressions returns what expressions of other files in HCL than pipelines may
// use: the functions that pipelines have, for files in the directory dir.
func Expressions(dir string) *hcl.EvalContext {
	return &hcl.EvalContext{Functions: functionsFor(dir, newScope(os.Environ()).environ)}
}
