// Package bandwidth bounds how many bytes a second are written, by several writers together, and reads and shows such
// bounds as people write them. It owns nothing but its books: it starts no goroutine, and never closes a writer.
//
// It is no bucket of tokens that fills while nothing is written: each piece is entered into the books as a time until
// which the line is paid for, and the next piece waits until then. So there are no bursts beyond slack, however long
// a session was idle, and writers are served in the order in which they asked. text.go has what people write.
package bandwidth

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// A piece, which is what is paid for and written at once, is what the limit allows in this time...
	pieceTime = time.Second / 50
	// ... within these bounds, in bytes. With the least limit the smallest piece takes a quarter of a second.
	leastPiece = 256
	mostPiece  = 16 << 10
	// slack is how much time a Limit that was not used up can make good for. It covers timers that end late.
	slack = time.Second / 20
)

// Limit is a bound in bytes a second for all of its writers together. It may be used by several goroutines at once.
type Limit struct {
	// ctx ends all waiting; its cause is the error that writers get.
	ctx context.Context

	mu   sync.Mutex
	rate int64     // bytes a second; 0: no limit
	paid time.Time // when all that was taken so far is paid for; each piece that is taken waits for those before it

	table  Timetable // where the bound follows one
	looked time.Time // when that was looked at, by the clock on the wall
	recall time.Time // when it is to be looked at again
	clock  func() time.Time
}

// NewLimit makes a Limit as SetLimit does. Writes that wait for it end when ctx does.
func NewLimit(ctx context.Context, bytesPerSecond int64) *Limit {
	l := &Limit{ctx: ctx, clock: time.Now}
	l.SetLimit(bytesPerSecond)
	return l
}

// NewTimed makes a Limit that follows a timetable, by the clock of this host: what is under way goes on with the limit of the
// time.
func NewTimed(ctx context.Context, t Timetable) *Limit {
	rate, _ := t.At(time.Now())
	l := NewLimit(ctx, rate)
	l.table = t
	return l
}

// lookAgain bounds how long a Limit believes the clock, which may be set.
const lookAgain = time.Minute

// turn sets the bound of the time, where it is due. mu is held.
func (l *Limit) turn() {
	if len(l.table.moments) == 0 {
		return
	}
	now := l.clock().Round(0) // a timetable goes by the clock on the wall; one that was set back shows a time before the last look
	if now.Before(l.recall) && !now.Before(l.looked) {
		return
	}
	rate, next := l.table.At(now)
	l.set(rate)
	l.looked = now
	if l.recall = now.Add(lookAgain); next.Before(l.recall) {
		l.recall = next
	}
}

// SetLimit changes the bound: 0 or less for none, otherwise what lies outside of Least and Most is taken for the nearer
// of them. It holds from the next piece of each writer on.
func (l *Limit) SetLimit(bytesPerSecond int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set(bytesPerSecond)
}

// set is SetLimit. mu is held.
func (l *Limit) set(bytesPerSecond int64) {
	l.rate = 0
	if bytesPerSecond > 0 {
		l.rate = min(max(bytesPerSecond, Least), Most)
	}
}

// Writer gives a writer to w that counts against the limit. It has as many users at a time as w may have. A write that
// the end of the context cuts short gives an error that wraps the context's cause; other errors are those of w.
func (l *Limit) Writer(w io.Writer) io.Writer { return &writer{limit: l, w: w} }

// writer cuts what is written into pieces and pays for each before it is written.
type writer struct {
	limit *Limit
	w     io.Writer
}

func (w *writer) Write(p []byte) (n int, err error) {
	for {
		size, err := w.limit.take(len(p) - n)
		if err != nil {
			return n, fmt.Errorf("wait for bandwidth: %w", err)
		}
		wrote, err := w.w.Write(p[n : n+size])
		n += wrote
		if err == nil && wrote < size {
			err = io.ErrShortWrite
		}
		if err != nil || n >= len(p) {
			return n, err
		}
	}
}

// take waits until a piece of what is wanted may be written, and gives its size. Who asked first is served first, and
// asks for one piece at a time, so all writers that have something to write get the same.
func (l *Limit) take(want int) (int, error) {
	// Also where no limit is set: after the end of the session nothing is written any more.
	if l.ctx.Err() != nil {
		return 0, context.Cause(l.ctx)
	}
	size, wait := l.pay(want)
	if wait <= 0 {
		return size, nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return size, nil
	case <-l.ctx.Done():
		return 0, context.Cause(l.ctx)
	}
}

// pay enters a piece of what is wanted into the books, and gives its size and how long to wait before it is written:
// until the pieces before it are paid for.
func (l *Limit) pay(want int) (size int, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	if l.rate == 0 {
		return want, 0
	}
	size = int(min(int64(want), max(leastPiece, min(l.rate/int64(time.Second/pieceTime), mostPiece))))
	now := time.Now()
	if earliest := now.Add(-slack); l.paid.Before(earliest) {
		l.paid = earliest
	}
	wait = l.paid.Sub(now)
	// What was paid for is not given back where the wait or the write then fails: the session is over by then.
	l.paid = l.paid.Add(time.Duration(float64(size) / float64(l.rate) * float64(time.Second)))
	return size, wait
}
