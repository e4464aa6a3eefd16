package connect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"georep/slave/sshconn"
)

// ErrMeasure means that the login succeeded, and the connection was lost or stood still afterwards. Passing.
var ErrMeasure = errors.New("the connection does not hold")

// Line is what was measured of the way to a slave's host.
type Line struct {
	Addr      string        // host:port
	Server    string        // what the SSH server calls itself
	Login     time.Duration // from the first packet to the end of the login
	RoundTrip time.Duration // the shortest of some
	Rate      float64       // bytes a second to the host over one connection, as far as so little tells
}

// What is sent to learn the rate: twice as much each time, until that takes longEnough, or is mostSent.
const (
	roundTrips = 5
	leastSent  = 128 << 10
	mostSent   = 8 << 20
	longEnough = 300 * time.Millisecond
)

// Measure logs in at the slave's host and measures the line. Nothing is run there. The slave must not be local.
func Measure(ctx context.Context, c Config) (l Line, err error) {
	options, err := c.Session.Options()
	if err != nil {
		return l, err
	}
	began := time.Now()
	conn, err := c.dial(ctx, options)
	if err != nil {
		return l, err
	}
	defer conn.Close()
	l = Line{Addr: conn.Addr(), Server: conn.Server(), Login: time.Since(began)}
	if err := l.measure(ctx, conn); err != nil {
		return l, fmt.Errorf("%w: %w", ErrMeasure, err)
	}
	return l, nil
}

// measure fills in round trip and rate. It takes about a second, and a few megabytes at most.
func (l *Line) measure(ctx context.Context, conn *sshconn.Conn) error {
	for i := range roundTrips {
		took, err := conn.Ping(ctx, 0)
		if err != nil {
			return err
		}
		if i == 0 || took < l.RoundTrip {
			l.RoundTrip = took
		}
	}
	for bytes := leastSent; ; bytes *= 2 {
		took, err := conn.Ping(ctx, bytes)
		if err != nil {
			return err
		}
		l.Rate = float64(bytes) / max(took-l.RoundTrip, time.Microsecond).Seconds()
		if took > longEnough || bytes >= mostSent {
			return nil
		}
	}
}
