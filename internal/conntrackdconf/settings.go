package conntrackdconf

// Settings are what decides how conntrackd's commands work, beside the
// pipelines. Absent settings have conntrackd's defaults.
type Settings struct {
	Socket   string // UNIX Path
	LockFile string

	Sync, Stats bool // there is such a section

	InternalCache bool // of Sync: it is not disabled
	ExternalCache bool

	Links  []Link // in the file's order
	Active int    // the index of the one to begin with
}

// A Link is a section that joins the node to others.
type Link struct {
	Kind      string // Multicast, UDP or TCP
	Interface string
}

// conntrackd's defaults.
const (
	defaultSocket = "/var/run/conntrackd.ctl"
	defaultLock   = "/var/lock/conntrack.lock"
)

// Settings returns the settings of a file without errors.
func (f *File) Settings() Settings {
	c := &converter{file: f}
	c.survey()
	s := Settings{
		Socket: defaultSocket, LockFile: defaultLock, Sync: c.synchronizes,
		InternalCache: !c.noInternalCache, ExternalCache: !c.noExternalCache,
	}
	for _, n := range f.Nodes {
		s.Stats = s.Stats || n.Name.Text == "Stats"
		if n.Name.Text == "General" {
			s.general(n)
		}
		for _, inner := range n.Body {
			if isLink(inner) {
				s.addLink(inner, inner == c.active)
			}
		}
	}
	return s
}

func (s *Settings) general(n *Node) {
	if lock := n.find("LockFile", "Lockfile"); lock != nil {
		s.LockFile = lock.arg()
	}
	for _, unix := range n.Body {
		if path := unix.find("Path"); unix.Name.Text == "UNIX" && path != nil {
			s.Socket = path.arg()
		}
	}
}

func (s *Settings) addLink(n *Node, active bool) {
	l := Link{Kind: n.Name.Text}
	if device := n.find("Interface"); device != nil {
		l.Interface = device.arg()
	}
	if active {
		s.Active = len(s.Links)
	}
	s.Links = append(s.Links, l)
}
