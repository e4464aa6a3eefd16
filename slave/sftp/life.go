package sftp

import (
	"context"
	"sync"
)

// life is how long an open slave lives: until Close, or until a session is lost. All parts share one.
type life struct {
	// closing is closed by Close, before it waits for the calls that are at work.
	closing chan struct{}
	done    chan struct{} // the session has ended, or is lost
	// loops are the goroutines that Open began: of the stamper, of the lease, and a watch for each session.
	loops    sync.WaitGroup
	once     sync.Once
	failOnce sync.Once
	// closeMu guards closed and err, and that nobody enters once closed is set; users are those who entered.
	closeMu sync.Mutex
	closed  bool
	err     error
	users   sync.WaitGroup
}

func newLife() *life { return &life{closing: make(chan struct{}), done: make(chan struct{})} }

// fail ends the session with this reason. The first reason counts; whoever waits on done goes on at
// once.
func (l *life) fail(why error) {
	l.failOnce.Do(func() {
		l.closeMu.Lock()
		l.err = why
		l.closeMu.Unlock()
		close(l.done)
	})
}

// Done is closed when the session is lost or closed; Err tells why.
func (l *life) Done() <-chan struct{} { return l.done }

// Err is why the session ended; nil while it goes on.
func (l *life) Err() error {
	l.closeMu.Lock()
	defer l.closeMu.Unlock()
	return l.err
}

// enter is called by whatever uses the sessions, so that Close can wait for it; leave must follow
// when it gives nil. ErrClosed comes after Close has begun, and the reason of the end after the
// session was lost.
func (l *life) enter() error {
	l.closeMu.Lock()
	defer l.closeMu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if l.err != nil {
		return l.err
	}
	l.users.Add(1)
	return nil
}

// leave ends what enter began.
func (l *life) leave() { l.users.Done() }

// use is enter for a call that ends at once when ctx is over. When it gives no error, leave must follow.
func (l *life) use(ctx context.Context) error {
	err := l.enter()
	if err != nil {
		return err
	}
	if err = l.live(ctx); err != nil {
		l.leave()
	}
	return err
}

// live gives the error that ends a long call: ctx's, ErrClosed once Close has begun, or why the
// session was lost. It is asked between two steps, and costs no request.
func (l *life) live(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.closing:
		return ErrClosed
	case <-l.done:
		return l.Err()
	default:
		return nil
	}
}
