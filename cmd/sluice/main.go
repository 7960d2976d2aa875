package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/sluice-project/sluice/core/confine"
)

func main() {
	confine.Main()
	a, args := newApp(os.Stdin, os.Stdout, os.Stderr), os.Args[1:]
	if filepath.Base(os.Args[0]) == conntrackdName {
		args = append([]string{conntrackdName}, args...)
	}
	os.Exit(a.execute(context.Background(), args))
}
