// Package picture draws pipelines, as SVG and as DOT.
//
// A Graph says what to draw; Configured makes one of a checked configuration,
// Running one of a node's status, with what passes each edge if rates are
// known. `sluice graph` and the metrics listener's page use it:
//
//	pipeline.Configuration ─→ Configured ─┐
//	control.Status, rates  ─→ Running ────┴→ Graph ─→ WriteSVG, WriteDOT
//
// A pipeline is a chain whose end may fan out to several sinks, so the layout is
// a row of boxes with a column at its end: no general layout of graphs is
// needed, and none is here. The SVG has text as text, no scripts and no
// resources from elsewhere; it follows the reader's light or dark preference,
// and has a white or dark ground of its own, so it can stand on any page.
package picture
