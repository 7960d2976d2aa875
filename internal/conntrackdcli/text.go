package conntrackdcli

import (
	"fmt"
	"io"
	"os"
	"time"
)

// A Severity is that of a line for the terminal, as conntrackd writes it.
type Severity string

// The severities.
const (
	Failure Severity = "ERROR"
	Warning Severity = "warning"
	Notice  Severity = "notice"
)

// Report writes a line as conntrackd does:
//
//	[Sun Nov 22 23:31:24 2026] (pid=28751) [ERROR] text
func Report(w io.Writer, severity Severity, text string) {
	fmt.Fprintf(w, "[%s] (pid=%d) [%s] %s\n", time.Now().Format(time.ANSIC), os.Getpid(), severity, text)
}

// WriteVersion writes the release that is reproduced, where scripts look for
// it, and that of Sluice.
func WriteVersion(w io.Writer, sluice string) error {
	_, err := fmt.Fprintf(w, "Connection tracking userspace daemon v%s. Provided by Sluice %s.\n", Version, sluice)
	return err
}

const usage = `Connection tracking userspace daemon v` + Version + `
Usage: conntrackd [commands] [options]

General commands:
  -d                        run in the background
  -C FILE                   read this conntrackd.conf
  -v                        print the version
  -h                        print this

Commands for the daemon that runs:
  -i [ct|expect]            print the internal cache
  -e [ct|expect]            print the external cache
  -x                        behind -i or -e: as XML
  -c [ct|expect]            commit the external cache to the kernel
  -f [internal|external]    empty the caches
  -F [ct|expect]            empty the kernel's table
  -R [ct|expect]            read the kernel's table again
  -B                        send everything to the other nodes
  -n                        ask the other nodes for everything
  -t                        empty the kernel's table PurgeTimeout from now
  -s [network|cache|runtime|link|rsqueue|process|queue|ct|expect]
                            print statistics
  -k                        end it

`

// WriteUsage writes the usage.
func WriteUsage(w io.Writer) error {
	_, err := io.WriteString(w, usage)
	return err
}
