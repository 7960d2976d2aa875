package link

import (
	"os"
	"testing"

	"github.com/sluice-project/sluice/test/node"
)

// sluice is the binary under test.
var sluice string

func TestMain(m *testing.M) {
	os.Exit(node.WithBinary(func(path string) int {
		sluice = path
		return m.Run()
	}))
}
