package main

import (
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugintest"
	"github.com/sluice-project/sluice/core/plugintest/kit"
)

func TestMain(m *testing.M) { plugintest.Main(m, definition) }

func TestConformance(t *testing.T) {
	plugintest.Run(t, plugintest.Plugin{Definition: definition, Block: "keep = 3"})
}

func TestClearsBits(t *testing.T) {
	stage := plugintest.Start(t, plugintest.Plugin{Definition: definition, Block: "keep = 3"})
	fed := kit.Events(0, 200, flow.New, flow.Destroy)
	stage.Feed(fed...)
	passed := stage.Drain()
	if len(passed) != len(fed) {
		t.Fatalf("%d of %d events passed", len(passed), len(fed))
	}
	for i := range passed {
		if passed[i].Mark != fed[i].Mark&3 {
			t.Errorf("mark %d became %d", fed[i].Mark, passed[i].Mark)
		}
	}
}
