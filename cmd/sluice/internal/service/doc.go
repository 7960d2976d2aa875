// Package service tells the service manager, systemd, how the runner is, by the
// protocol of sd_notify(3): when it is ready, when it loads another
// configuration and is done, what it is doing, that it ends, and, again and
// again, that it is alive.
//
// A process that no service manager started has nobody to tell: then a Manager
// does nothing. What alive means is the runner's business; this package keeps
// the watchdog's clock.
package service
