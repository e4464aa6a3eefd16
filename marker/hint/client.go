package hint

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// Sink takes what Follow receives. Its methods are called from one goroutine at a time, and should not take long.
type Sink interface {
	// Up says that hints will follow. What was marked before is not among them.
	Up()
	// Hint is called for each, in the order of the marks, none left out since the last Up or Gap.
	Hint(*Hint)
	// Gap says that there was at least one mark of which no hint told.
	Gap()
	// Down says that the connection is lost.
	Down()
}

// retryEach is how often Follow looks for a marker that is not there: two system calls.
const retryEach = 200 * time.Millisecond

// Follow subscribes to the hints of the marker whose runtime directory dir is, again after each time that it ends, and
// passes them to the sink until ctx ends. A marker that is not there, or of another version, is waited for. It returns
// when nothing of it is left.
func Follow(ctx context.Context, dir string, sink Sink) {
	for ctx.Err() == nil {
		_ = follow(ctx, dir, sink) // whatever ended it is mended by the next try, and meanwhile nothing depends on it
		select {
		case <-ctx.Done():
		case <-time.After(retryEach):
		}
	}
}

// follow is one connection. Its error says why the connection ended, or was never made; there
// always is one. The socket must belong to this user.
func follow(ctx context.Context, dir string, sink Sink) error {
	at, err := openPlace(dir)
	if err != nil {
		return err
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: at.address(), Net: "unix"})
	at.dir.Close()
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := ours(c); err != nil {
		return err
	}
	return receive(bufio.NewReaderSize(c, 64<<10), sink)
}

// receive passes on what comes until it ends. A gap in the sequence is told as a Gap even if none
// was sent, so that the sink need not count.
func receive(from io.Reader, sink Sink) error {
	var first [len(preface)]byte
	if _, err := io.ReadFull(from, first[:]); err != nil {
		return err
	}
	if string(first[:]) != preface {
		return fmt.Errorf("%w: it begins with %q", ErrMalformed, first)
	}
	sink.Up()
	defer sink.Down()
	r := reader{r: from}
	last, known := uint64(0), false
	for {
		m, err := r.next()
		if err != nil {
			return err
		}
		if m.hint == nil {
			last, known = m.seq, true
			sink.Gap()
			continue
		}
		if !known || m.seq != last+1 {
			sink.Gap()
		}
		last, known = m.seq, true
		sink.Hint(m.hint)
	}
}
