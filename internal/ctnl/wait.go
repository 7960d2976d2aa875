package ctnl

import "time"

// WaitFor is Wait that ends after d at the latest.
func (e *Events) WaitFor(d time.Duration) error {
	err := pollWait(e.poll[:], d)
	e.takeWake(e.poll[1].Revents)
	return err
}
