package disk

import (
	"context"
	"sync"
	"time"
)

// life is how long an open slave lives: until Close, or until its root is not at its path any more.
// All parts share one. Whatever uses the descriptors outside the committer enters before and leaves
// afterwards; the last one to leave closes them. closeMu guards closed and users, and nothing is
// locked under it. closing says that Close was called, done that the slave was lost, and finished
// that the committer has ended.
type life struct {
	closing  chan struct{}
	finished chan struct{} // the committer has ended
	done     chan struct{} // the root is not at its path any more
	lost     error         // how that was found; set before done is closed
	loseOnce sync.Once

	closeMu sync.Mutex
	closed  bool
	users   int    // calls that use the descriptors
	release func() // closes them
}

// newLife makes the life of a slave that is about to be opened; release is set before anybody
// enters.
func newLife() *life {
	return &life{closing: make(chan struct{}), finished: make(chan struct{}), done: make(chan struct{})}
}

// shut has every call end, and no further one begin. It enters, so that the descriptors stay until its caller leaves.
func (l *life) shut() {
	l.closeMu.Lock()
	l.closed = true
	l.users++
	l.closeMu.Unlock()
	close(l.closing)
}

// atWork tells, to who called shut, whether a call still uses the descriptors.
func (l *life) atWork() bool {
	l.closeMu.Lock()
	defer l.closeMu.Unlock()
	return l.users > 1
}

// lose ends the session for good: the root is gone, for the reason given. Only the first reason
// counts. Calls at work end when they next ask live.
func (l *life) lose(err error) {
	l.loseOnce.Do(func() {
		l.lost = err
		close(l.done)
	})
}

// enter is called by whatever uses the descriptors outside the committer; leave must follow when it gives nil.
func (l *life) enter() error {
	l.closeMu.Lock()
	defer l.closeMu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if err := l.Err(); err != nil {
		return err
	}
	l.users++
	return nil
}

// leave closes the descriptors when Close could not, because this call was still at work.
func (l *life) leave() {
	l.closeMu.Lock()
	l.users--
	last := l.closed && l.users == 0
	l.closeMu.Unlock()
	if last {
		<-l.finished
		l.release()
	}
}

// live gives the error that ends a long call: ctx's, or ErrClosed.
func (l *life) live(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.done:
		return l.lost
	case <-l.closing:
		return ErrClosed
	default:
		return nil
	}
}

// unclosed tells whether the Tree is still open.
func (l *life) unclosed() bool { return l.live(context.Background()) == nil }

// Done is closed when the slave is lost; Err tells why.
func (l *life) Done() <-chan struct{} { return l.done }

// Err is why the slave was lost; nil while it was not.
func (l *life) Err() error {
	select {
	case <-l.done:
		return l.lost
	default:
		return nil
	}
}

// over is the error of calls that the end of the session cuts short.
func (l *life) over() error {
	if err := l.Err(); err != nil {
		return err
	}
	return ErrClosed
}

// rest waits, or tells that the session ends. It is for waiting between two looks, and returns
// early when the session ends.
func (l *life) rest(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.closing:
	case <-l.done:
	}
	return l.live(context.Background())
}
