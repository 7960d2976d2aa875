package plugin

import (
	"fmt"
	"net/netip"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

func screenMessage(s *flow.Screen) *stagepb.Screen {
	if s == nil {
		return nil
	}
	m := &stagepb.Screen{}
	if l := s.Protocols; l != nil {
		m.Protocols = &stagepb.ProtocolList{Accept: l.Accept, Protocols: l.Protocols}
	}
	if l := s.Addresses; l != nil {
		m.Addresses = &stagepb.AddressList{Accept: l.Accept}
		for _, p := range l.Prefixes {
			m.Addresses.Prefixes = append(m.Addresses.Prefixes, p.String())
		}
	}
	return m
}

func screensOf(messages []*stagepb.Screen) (screens []flow.Screen, err error) {
	for _, m := range messages {
		var s flow.Screen
		if l := m.Protocols; l != nil {
			s.Protocols = &flow.ProtocolList{Accept: l.Accept, Protocols: l.Protocols}
		}
		if l := m.Addresses; l != nil {
			s.Addresses = &flow.AddressList{Accept: l.Accept}
			for _, text := range l.Prefixes {
				p, err := netip.ParsePrefix(text)
				if err != nil {
					return nil, fmt.Errorf("screen: %w", err)
				}
				s.Addresses.Prefixes = append(s.Addresses.Prefixes, p)
			}
		}
		screens = append(screens, s)
	}
	return screens, nil
}
