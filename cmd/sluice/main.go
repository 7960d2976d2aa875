package main

import (
	"context"
	"os"
	"path/filepath"
)

func main() {
	a, args := newApp(os.Stdin, os.Stdout, os.Stderr), os.Args[1:]
	if filepath.Base(os.Args[0]) == conntrackdName {
		args = append([]string{conntrackdName}, args...)
	}
	os.Exit(a.execute(context.Background(), args))
}
