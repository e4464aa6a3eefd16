package connect

import (
	"context"
	"sync"

	"georep/slave/sshconn"
)

// maxLines bounds the SSH connections of a session, and streamsPerLine says how many streams it has for each: sshd decrypts
// each connection in one process, so on one core, and one TCP connection does not fill a long link that loses packets.
const (
	maxLines       = 2
	streamsPerLine = 4
)

// lines are the SSH connections that the streams of one session are spread over. The first is there from the beginning, the
// others are made when the first of their streams is wanted. Its methods may be called from any goroutine.
type lines struct {
	main    *sshconn.Conn
	dial    func(context.Context) (*sshconn.Conn, error)
	further []line
	refused func(error) // told why a further connection was not to be had
}

// line is a further connection, once somebody asked for it.
type line struct {
	once sync.Once
	conn *sshconn.Conn // nil where there is none
}

// newLines takes main over; close closes it. refused is called at most once for each further
// connection.
func newLines(main *sshconn.Conn, streams int, dial func(context.Context) (*sshconn.Conn, error), refused func(error)) *lines {
	n := min(maxLines, (streams+streamsPerLine-1)/streamsPerLine)
	return &lines{main: main, dial: dial, further: make([]line, max(0, n-1)), refused: refused}
}

// of gives the connection for a stream: for stream 0 the first one, which also stands in for one that is not to be had. ctx
// bounds the connecting.
func (l *lines) of(ctx context.Context, stream int) *sshconn.Conn {
	at := stream%(len(l.further)+1) - 1
	if at < 0 {
		return l.main
	}
	f := &l.further[at]
	f.once.Do(func() {
		conn, err := l.dial(ctx)
		if err != nil {
			l.refused(err)
			return
		}
		f.conn = conn
	})
	if f.conn == nil {
		return l.main
	}
	return f.conn
}

// ahead makes all connections, so that those who want them need not wait. ctx bounds the connecting.
func (l *lines) ahead(ctx context.Context) {
	for i := range l.further {
		l.of(ctx, i+1)
	}
}

// onMain is how many of so many streams are for the first connection.
func (l *lines) onMain(streams int) int {
	n := len(l.further) + 1
	return (streams + n - 1) / n
}

// close cuts all connections. Nobody asks for one any more.
func (l *lines) close() {
	for i := range l.further {
		if c := l.further[i].conn; c != nil {
			c.Close()
		}
	}
	l.main.Close()
}
