package main

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"regexp"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A picture is a file of panels side by side, drawn from a result alone.
type picture struct {
	name, title string
	columns     int
	panels      func(r *result) []*plot.Plot // those that the result has figures for
}

var pictures = []picture{
	{"cpu", "CPU an event by rate, sender and receiver", 2, cpuPanels},
	{"delay", "Delay from a flow's first packet to the peer's link: median and 99th percentile", 2, delayPanels},
	{"bars", "Takeover, bulk update, memory, highest rates", 3, barPanels},
	{"growth", "CPU an event and bytes a flow by the number of flows", 2, growthPanels},
}

const (
	panelWidth  = 4.1 * vg.Inch
	panelHeight = 2.9 * vg.Inch
	margin      = 0.12 * vg.Inch
)

// A look is how a system is drawn.
type look struct {
	system, label, short string
	color                color.Color
}

// looks are colours that can be told apart on white, in grey as well.
var looks = []look{
	{nameSluice, "Sluice", "Sluice", color.NRGBA{0x0b, 0x5c, 0xad, 0xff}},
	{nameConntrackd, "conntrackd", "conntrackd", color.NRGBA{0xd9, 0x7a, 0x06, 0xff}},
	{nameOrdinary, "conntrackd, ordinary scheduler", "ordinary", color.NRGBA{0xe8, 0xb7, 0x7d, 0xff}},
	{nameKernel, "the kernel's limit", "kernel alone", color.NRGBA{0x9a, 0xa5, 0xb1, 0xff}},
}

func init() { plot.DefaultFont.Variant = "Sans" }

// draw writes the pictures that a result has figures for into a folder.
func draw(r *result, folder string) error {
	var errs []error
	for _, p := range pictures {
		panels := p.panels(r)
		if len(panels) == 0 {
			continue
		}
		text, err := render(panels, p.columns, p.title)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, p.name+".svg"), text, 0o644)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("draw %s: %w", p.name, err))
		}
	}
	return errors.Join(errs...)
}

// render lays panels out in columns, on white: pages may be dark.
func render(panels []*plot.Plot, columns int, title string) ([]byte, error) {
	columns = min(columns, len(panels))
	lines := (len(panels) + columns - 1) / columns
	canvas := vgsvg.New(panelWidth*vg.Length(columns), panelHeight*vg.Length(lines))
	area := vgdraw.New(canvas)
	area.SetColor(color.White)
	area.Fill(area.Rectangle.Path())
	tiles := vgdraw.Tiles{
		Rows: lines, Cols: columns,
		PadTop: margin, PadBottom: margin, PadLeft: margin, PadRight: 2 * margin, PadX: 2 * margin, PadY: 2 * margin,
	}
	for i, p := range panels {
		p.Draw(tiles.At(area, i%columns, i/columns))
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, err
	}
	return portable(b.Bytes(), title), nil
}

var fontFamily = regexp.MustCompile(`font-family:[^;"]*`)
var opening = regexp.MustCompile(`(?s)<svg[^>]*>`)

// portable names fonts that every reader has, and says what the picture is to
// who can't see it.
func portable(svg []byte, title string) []byte {
	svg = fontFamily.ReplaceAll(svg, []byte("font-family:Helvetica, Arial, 'Liberation Sans', sans-serif"))
	where := opening.FindIndex(svg)
	if where == nil {
		return svg
	}
	return append(append(append([]byte{}, svg[:where[1]]...), "\n<title>"+title+"</title>"...), svg[where[1]:]...)
}
