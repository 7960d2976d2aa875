// Package plugintest tests plugins in Go: it runs the conformance kit (package
// kit, which `sluice plugin check` runs, too) and gives a test a stage to feed.
//
// The processes are real: the test's own executable becomes the plugin, started
// over the control protocol and wired with sockets as a runner does it. So TestMain
// must call Main:
//
//	func TestMain(m *testing.M) { plugintest.Main(m, definition) }
//
//	func TestConformance(t *testing.T) {
//		plugintest.Run(t, plugintest.Plugin{Definition: definition, Block: `value = 7`})
//	}
//
//	func TestWhatPasses(t *testing.T) {
//		stage := plugintest.Start(t, plugintest.Plugin{Definition: definition, Block: `value = 7`})
//		stage.Feed(kit.Events(0, 100, flow.New)...)
//		for _, e := range stage.Drain() { … }
//	}
//
// It needs no privilege. It does not replace tests of what the plugin is for.
package plugintest
