package testbed

import (
	"errors"
	"fmt"
)

// Single is a client, one firewall and a server, joined by two cables. The
// firewall holds InsideVIP and OutsideVIP for good.
type Single struct {
	Client, Server *Namespace
	FW             *Firewall
	made           namespaces
}

// NewSingle builds a Single; the caller must Close it.
func NewSingle(config FirewallConfig) (*Single, error) {
	s := &Single{}
	if err := s.build(config); err != nil {
		return nil, errors.Join(fmt.Errorf("testbed: single: %w", err), s.Close())
	}
	return s, nil
}

// MustSingle is NewSingle for tests.
func MustSingle(t TB, config FirewallConfig) *Single {
	t.Helper()
	Require(t)
	s, err := NewSingle(config)
	return owned(t, s, err)
}

// Close removes the namespaces.
func (s *Single) Close() error { return s.made.close() }

func (s *Single) build(config FirewallConfig) error {
	if err := s.made.add("client", &s.Client); err != nil {
		return err
	}
	if err := s.made.add("server", &s.Server); err != nil {
		return err
	}
	s.FW = &Firewall{Inside: InsideVIP, Outside: OutsideVIP}
	if err := s.made.add("fw", &s.FW.Namespace); err != nil {
		return err
	}
	return firstError(
		func() error { return Cable(s.FW.Namespace, InsideLink, s.Client, HostLink) },
		func() error { return Cable(s.FW.Namespace, OutsideLink, s.Server, HostLink) },
		func() error { return s.FW.AddAddr(InsideLink, InsideVIP.Prefixes()...) },
		func() error { return s.FW.AddAddr(OutsideLink, OutsideVIP.Prefixes()...) },
		func() error { return s.FW.configure(config) },
		func() error { return clientHost(s.Client) },
		func() error { return serverHost(s.Server) },
	)
}

// namespaces are those that a topology made and has to close.
type namespaces []*Namespace

func (l *namespaces) add(role string, into **Namespace) error {
	n, err := NewNamespace(role)
	if err != nil {
		return err
	}
	*l, *into = append(*l, n), n
	return nil
}

func (l namespaces) close() error {
	var errs []error
	for _, n := range l {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

// firstError runs steps up to the first that fails.
func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
