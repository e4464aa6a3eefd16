package proxy

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// line is one direction of the wire, shared by all connections: it says when a byte arrives.
type line struct {
	delay     time.Duration
	rate      int64
	delivered atomic.Int64

	mu   sync.Mutex
	free time.Time // when the wire has sent what was given to it
}

func newLine(opts Options) *line { return &line{delay: opts.Delay, rate: opts.Rate} }

// arrival returns when n bytes, given to the line now, are at its other end.
func (l *line) arrival(now time.Time, n int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free.Before(now) {
		l.free = now
	}
	if l.rate > 0 {
		l.free = l.free.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	}
	return l.free.Add(l.delay)
}

// parcel is data on the way; err, when set, is what follows the last data.
type parcel struct {
	data []byte
	due  time.Time
	err  error
}

// pump carries one direction of one connection.
type pump struct {
	dst    io.Writer
	src    io.Reader
	line   *line
	gate   *gate
	way    way
	window int
	cut    func() // cuts all connections, this one too
	stop   func() // closes source and destination at once
}

// chunk is the most that travels as one parcel.
const chunk = 32 << 10

// run carries until the source's end, which it passes on as such. Another error or the end of ctx ends it too, and it
// then stops the connection. It returns when its goroutine has ended.
func (p pump) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	way := make(chan parcel, p.window/chunk+1)
	room := newRoom(p.window)
	var reader sync.WaitGroup
	reader.Go(func() { p.read(ctx, way, room) })
	if err := p.write(ctx, way, room); err != nil {
		p.stop()
	}
	cancel()
	reader.Wait()
}

// read puts what comes on the way, never more than the window.
func (p pump) read(ctx context.Context, way chan<- parcel, room *room) {
	buf := make([]byte, chunk)
	for {
		n, err := p.src.Read(buf)
		now := time.Now()
		part := parcel{data: append([]byte(nil), buf[:n]...), due: p.line.arrival(now, n), err: err}
		if !room.take(ctx, n) {
			return
		}
		select {
		case way <- part:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// write delivers each parcel when it is due.
func (p pump) write(ctx context.Context, way <-chan parcel, room *room) error {
	for {
		var part parcel
		select {
		case part = <-way:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !sleep(ctx, time.Until(part.due)) {
			return ctx.Err()
		}
		if err := p.deliver(ctx, part.data); err != nil {
			return err
		}
		room.give(len(part.data))
		switch {
		case part.err == nil:
		case errors.Is(part.err, io.EOF):
			return p.closeWrite(ctx)
		default:
			return part.err
		}
	}
}

// deliver writes as the gate allows.
func (p pump) deliver(ctx context.Context, data []byte) error {
	for len(data) > 0 {
		n, last, err := p.gate.pass(ctx, p.way, len(data))
		if err != nil {
			return err
		}
		// Counted first, so that whoever has seen a byte finds it counted.
		p.line.delivered.Add(int64(n))
		written, err := p.dst.Write(data[:n])
		p.line.delivered.Add(int64(written - n))
		if last {
			p.cut()
			p.gate.afterCut()
		}
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// closeWrite tells the destination of the end, behind the last byte.
func (p pump) closeWrite(ctx context.Context) error {
	if _, _, err := p.gate.pass(ctx, p.way, 0); err != nil {
		return err
	}
	if half, ok := p.dst.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// room counts the bytes that may still be put on the way.
type room struct {
	mu    sync.Mutex
	free  int
	freed chan struct{}
}

// newRoom is room for n bytes.
func newRoom(n int) *room { return &room{free: n, freed: make(chan struct{}, 1)} }

// take waits until there is any room and takes n, perhaps a little more than there is. It has one caller.
func (r *room) take(ctx context.Context, n int) bool {
	for {
		r.mu.Lock()
		fits := r.free > 0
		if fits {
			r.free -= n
		}
		r.mu.Unlock()
		if fits {
			return true
		}
		select {
		case <-r.freed:
		case <-ctx.Done():
			return false
		}
	}
}

// give takes n bytes off the way and wakes take.
func (r *room) give(n int) {
	r.mu.Lock()
	r.free += n
	r.mu.Unlock()
	select {
	case r.freed <- struct{}{}:
	default:
	}
}
