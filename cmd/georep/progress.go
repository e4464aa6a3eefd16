package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"georep/monitor/report"
	"georep/slave"
	"georep/status"
)

// clearLine goes to the line's begin and empties it.
const clearLine = "\r\x1b[K"

// progress is one line on a terminal that is written over and over; elsewhere it is nothing. For one goroutine at a
// time.
type progress struct {
	w     io.Writer // nil: nobody looks
	began time.Time
}

func newProgress(w io.Writer) *progress {
	p := &progress{began: time.Now()}
	if terminal(w) {
		p.w = w
	}
	return p
}

// shows is what shows a sync of this process; nil where nobody looks, so that nobody counts for it either.
func (p *progress) shows() func(r report.Progress, entries, seen int64) {
	if p.w == nil {
		return nil
	}
	return p.update
}

func (p *progress) update(r report.Progress, entries, seen int64) {
	io.WriteString(p.w, clearLine+syncLine(r, counts{entries: entries, seen: seen, elapsed: time.Since(p.began)}))
}

// status shows a session's.
func (p *progress) status(st status.Status) {
	if p.w == nil {
		return
	}
	fmt.Fprintf(p.w, "%s%s, %s: %d files, %s to go; %s/s", clearLine, st.State, st.Crawl, st.Pending.Files,
		status.Bytes(st.Pending.Bytes), status.Bytes(int64(st.Rates.BytesContent)))
	if eta := status.ETA(st.ETASeconds); eta != "" {
		fmt.Fprintf(p.w, ", %s", eta)
	}
}

// clear leaves the line empty for what is printed next.
func (p *progress) clear() {
	if p.w != nil {
		io.WriteString(p.w, clearLine)
	}
}

// counts is how far a sync is.
type counts struct {
	entries, seen int64 // that the master has, as far as is known, and that were looked at
	elapsed       time.Duration
}

// syncLine has files, bytes, rate and, where it is known, the time that is left.
func syncLine(r report.Progress, n counts) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", n.seen)
	if n.entries > 0 {
		fmt.Fprintf(&b, " of %d", max(n.entries, n.seen))
	}
	rate := 0.0
	if s := n.elapsed.Seconds(); s > 0 {
		rate = float64(r.Synced.BytesContent) / s
	}
	fmt.Fprintf(&b, " entries, %d files, %s, %s/s", r.Synced.Files, status.Bytes(r.Synced.BytesContent), status.Bytes(int64(rate)))
	if eta := status.ETA(r.ETASeconds); eta != "" {
		b.WriteString(", " + eta)
	}
	return b.String()
}

// liveLine is a line on a terminal that says how far a verification or a restore is, until end.
type liveLine struct {
	mu   sync.Mutex
	line *progress
	stop chan struct{}
	over sync.WaitGroup
}

// showEvery is how often the line is written.
const showEvery = 250 * time.Millisecond

// showSeen shows what was seen, of so many entries where that is known; 0: it is not.
func (e *env) showSeen(seen *slave.Seen, of func() int64) *liveLine {
	s := &liveLine{line: newProgress(e.err), stop: make(chan struct{})}
	if s.line.w == nil {
		return s
	}
	s.over.Go(func() {
		tick := time.NewTicker(showEvery)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
			}
			entries, bytes := seen.Sum()
			s.mu.Lock()
			io.WriteString(s.line.w, clearLine+seenLine(entries, bytes, of(), time.Since(s.line.began)))
			s.mu.Unlock()
		}
	})
	return s
}

// clear makes room for another line.
func (s *liveLine) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line.clear()
}

func (s *liveLine) end() {
	close(s.stop)
	s.over.Wait()
	s.clear()
}

// seenLine has entries, bytes, rate and, where it is known how many there are, the time that is left.
func seenLine(entries, bytes, of int64, elapsed time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", entries)
	if of > 0 {
		fmt.Fprintf(&b, " of %d", max(of, entries))
	}
	seconds := max(elapsed.Seconds(), 0.001)
	fmt.Fprintf(&b, " entries, %s, %s/s", status.Bytes(bytes), status.Bytes(int64(float64(bytes)/seconds)))
	if entries > 0 && of > entries {
		b.WriteString(", " + status.ETA(seconds*float64(of-entries)/float64(entries)))
	}
	return b.String()
}
