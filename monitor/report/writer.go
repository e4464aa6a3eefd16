package report

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"georep/status"
)

const (
	// maxFailures bounds both lists of a report; the totals are counted beyond it.
	maxFailures = status.MaxFailures
	// progressEvery bounds how often progress is written.
	progressEvery = 250 * time.Millisecond
	// aliveEvery is the heartbeat; the monitor loses patience after a minute.
	aliveEvery = time.Second
)

// Writer is the worker's side. Its methods may be called from many goroutines; each line goes out whole. Progress never
// blocks; the others block while the monitor does not read. After the first failed write all of them return its error.
type Writer struct {
	mu sync.Mutex // held while a line is written
	w  io.Writer
	// err is of the first write that failed, and guarded by mu.
	err error
	// heldMu guards held, and is never held while a line is written: that is why Progress does not block.
	heldMu sync.Mutex
	held   *Progress     // the newest that is not written yet
	some   chan struct{} // there is something in held
	news   chan struct{} // it is not to wait
}

// NewWriter writes to w, which stays the caller's.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, some: make(chan struct{}, 1), news: make(chan struct{}, 1)}
}

// Inherited opens the descriptor that the monitor gave this process. The caller closes it.
func Inherited() (*os.File, error) {
	// Looked at before it becomes a File: in a process of another parent it may be the runtime's own.
	var st unix.Stat_t
	if err := unix.Fstat(FD, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil, fmt.Errorf("descriptor %d is no pipe to report on: a worker is started by its monitor", FD)
	}
	unix.CloseOnExec(FD)
	return os.NewFile(FD, "reports"), nil
}

// Run writes the held progress and the heartbeat until ctx ends, then the last progress. It returns nil, or the error of
// a write: the monitor is gone. It sleeps while there is nothing to write.
func (w *Writer) Run(ctx context.Context) error {
	timer := time.NewTimer(aliveEvery)
	defer timer.Stop()
	for last := time.Now(); ; {
		var wrote bool
		var err error
		select {
		case <-ctx.Done():
			_, err := w.flush()
			return err
		case <-w.some:
			timer.Reset(max(0, time.Until(last.Add(progressEvery))))
			continue
		case <-w.news:
			wrote, err = w.flush()
		case now := <-timer.C:
			if wrote, err = w.flush(); !wrote && err == nil && now.Sub(last) >= aliveEvery {
				wrote, err = true, w.write(Report{Kind: Alive})
			}
		}
		if err != nil {
			return err
		}
		if wrote {
			last = time.Now()
		}
		timer.Reset(max(0, time.Until(last.Add(aliveEvery))))
	}
}

// Progress notes how far the worker is. Only the newest is kept until Run writes it. The Failures are copied as far as
// they are sent.
func (w *Writer) Progress(p Progress) {
	p.FailuresTotal = max(p.FailuresTotal, len(p.Failures))
	p.WaitingTotal = max(p.WaitingTotal, len(p.Waiting))
	p.Waiting = append([]status.Waiting(nil), p.Waiting[:min(len(p.Waiting), maxFailures)]...)
	p.Failures = append([]status.Failure(nil), p.Failures[:min(len(p.Failures), maxFailures)]...)
	w.heldMu.Lock()
	defer w.heldMu.Unlock()
	w.held = &p
	select {
	case w.some <- struct{}{}:
	default:
	}
}

// News is Progress that Run writes at once.
func (w *Writer) News(p Progress) {
	w.Progress(p)
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// Ready says that the worker is connected and has surveyed the root, or that the last fault is over.
func (w *Writer) Ready() error {
	if _, err := w.flush(); err != nil {
		return err
	}
	return w.write(Report{Kind: Ready})
}

// Faulty says that replication is held up, and why. Call it too before ending with an error.
func (w *Writer) Faulty(f Fault) error {
	if _, err := w.flush(); err != nil {
		return err
	}
	f.Reason = status.OneLine(f.Reason)
	return w.write(Report{Kind: KindFaulty, Fault: &f})
}

// Changed says what has become durable on the slave. The lists must be small enough for a line.
func (w *Writer) Changed(c Changed) error { return w.write(Report{Kind: KindChanged, Changed: &c}) }

// flush writes the held progress, so that it never follows what was said after it.
func (w *Writer) flush() (wrote bool, err error) {
	w.heldMu.Lock()
	p := w.held
	w.held = nil
	w.heldMu.Unlock()
	if p == nil {
		return false, nil
	}
	return true, w.write(Report{Kind: KindProgress, Progress: p})
}

// write keeps lines below maxLine by halving the lists, whose paths may be of any length.
func (w *Writer) write(r Report) error {
	line, err := json.Marshal(r)
	for err == nil && len(line) >= maxLine && r.Progress != nil && len(r.Progress.Failures)+len(r.Progress.Waiting) > 0 {
		r.Progress.Waiting = r.Progress.Waiting[:len(r.Progress.Waiting)/2]
		r.Progress.Failures = r.Progress.Failures[:len(r.Progress.Failures)/2]
		line, err = json.Marshal(r)
	}
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if _, err := w.w.Write(append(line, '\n')); err != nil {
		w.err = fmt.Errorf("report to the monitor: %w", err)
	}
	return w.err
}
