package runner

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// What this runner takes, in the words of a message.
var (
	protocolRange = versionRange(plugin.OldestProtocol, plugin.ProtocolVersion)
	batchRange    = versionRange(flow.Version, flow.Version)
)

func versionRange(oldest, newest int) string {
	if oldest == newest {
		return fmt.Sprintf("version %d alone", newest)
	}
	return fmt.Sprintf("versions %d to %d", oldest, newest)
}

// explain says what is wrong with a plugin that go-plugin refused, where its
// handshake tells: go-plugin knows no path and no way out.
func (p *process) explain(err error) error {
	hello := p.hello.Load()
	if hello == nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("%s wrote no handshake within %v", p.config.path, startTimeout)
		}
		return err
	}
	// CORE-PROTOCOL|PROTOCOL|NETWORK|ADDRESS|RPC…
	parts := strings.Split(*hello, "|")
	if len(parts) < 4 {
		if *hello == "" {
			return fmt.Errorf("%s wrote no handshake on its standard output: it is no plugin, or ended before it could speak%s", p.config.path, p.scriptAdvice())
		}
		return fmt.Errorf("%s wrote %.100q where a plugin writes its handshake: it is no plugin", p.config.path, printable(*hello))
	}
	version, atoiErr := strconv.Atoi(parts[1])
	if atoiErr != nil || version >= plugin.OldestProtocol && version <= plugin.ProtocolVersion {
		return err
	}
	return versionError(p.config.path, "the control protocol", version, plugin.ProtocolVersion, protocolRange)
}

// scriptAdvice is for the author of a script that looks for its modules where it
// lay before it was copied.
func (p *process) scriptAdvice() string {
	if p.config.image == nil {
		return ""
	}
	f, err := p.config.image.open()
	if err != nil {
		return ""
	}
	defer f.Close()
	var head [2]byte
	if _, err := f.ReadAt(head[:], 0); err != nil || string(head[:]) != "#!" {
		return ""
	}
	return "; it is a script, of which a copy of this one file is started: pack what lies beside it into it, as with python3 -m zipapp"
}

func versionError(path, what string, theirs, ours int, accepted string) error {
	advice := "rebuild the plugin with this Sluice's packages"
	if theirs > ours {
		advice = "update Sluice, or rebuild the plugin with this Sluice's packages"
	}
	return fmt.Errorf("%s speaks version %d of %s; this runner speaks version %d and accepts %s: %s",
		path, theirs, what, ours, accepted, advice)
}

// checkDescription checks that a plugin is what its file's name says, and reads
// the batches that are written here.
func (p *process) checkDescription() error {
	d, c := p.description, p.config
	switch {
	case c.kind != "" && (d.Kind != string(c.kind) || d.Type != c.typ):
		return fmt.Errorf("%s says that it is %s-%s, not %s-%s: rename the file",
			c.path, printable(d.Kind), printable(d.Type), c.kind, c.typ)
	case d.BatchVersion != flow.Version:
		return versionError(c.path, "the data format", int(d.BatchVersion), flow.Version, batchRange)
	case d.Schema == nil:
		return fmt.Errorf("%s describes no schema", c.path)
	}
	return nil
}
