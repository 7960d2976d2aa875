//go:build race

package cachememory

func init() { raceDetector = true }
