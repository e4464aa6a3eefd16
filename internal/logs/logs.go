// Package logs reads a session's log: its last lines, over the files that were put aside, and what is added to it.
package logs

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// maxLine bounds a line. What is longer comes in parts.
	maxLine = 64 << 10
	// pollEvery is how often a log that is followed is looked at. It may be renamed and begun anew, which no watch on it tells.
	pollEvery = 200 * time.Millisecond
)

// Show calls line with the last n lines of the log at path, without their ends, and with what is
// added until ctx ends, where it is to follow. A log that is not there yet is empty. Line must not
// keep what it is given. The error is that of reading, or line's, which ends it at once. Rotation
// while it runs loses no line: what is left of the old file comes before the new one.
func Show(ctx context.Context, path string, n int, follow bool, line func([]byte) error) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = nil, nil
	}
	if err != nil {
		return err
	}
	t := &tail{path: path, line: line}
	defer t.close()
	if err := t.last(f, n); err != nil {
		return err
	}
	if !follow {
		return t.finish()
	}
	return t.follow(ctx)
}

// tail is a log that is being read. It is for one goroutine. What it gives to line is good until
// line returns.
type tail struct {
	path string
	line func([]byte) error
	f    *os.File
	r    *bufio.Reader
	// part is bounded by maxLine, and given as a line by itself once it is full or the file has
	// ended.
	part []byte // of a line that is being written
}

// open goes on with f, from its present position, and closes what was open. nil: there is no log at
// the moment.
func (t *tail) open(f *os.File) {
	t.close()
	t.f = f
	if f != nil {
		t.r = bufio.NewReaderSize(f, maxLine)
	}
}

// close may be called twice.
func (t *tail) close() {
	if t.f != nil {
		t.f.Close()
	}
	t.f = nil
}

// last prints the last n lines, of older files too where the newest has too few, and leaves the log
// open at its end. Older files are read from their beginning, since lines have no index; there are
// few of them, and their size is bounded.
func (t *tail) last(f *os.File, n int) error {
	var kept lastLines
	print := t.line
	t.line = kept.adder(n)
	t.open(f)
	if err := t.read(); err != nil {
		return err
	}
	if len(kept.lines) < n {
		files, err := filepath.Glob(t.path + "-[0-9]*") // by time, as they were put aside
		if err != nil {
			return err
		}
		var before lastLines
		for _, name := range files {
			if err := each(name, before.adder(n)); err != nil {
				return err
			}
		}
		kept.lines = append(before.lines, kept.lines...)
	}
	t.line = print
	for _, b := range kept.lines[max(0, len(kept.lines)-n):] {
		if err := t.line(b); err != nil {
			return err
		}
	}
	return nil
}

// lastLines keeps the newest of many lines. It holds up to twice as many as are wanted, so that
// making room is rare.
type lastLines struct{ lines [][]byte }

// adder gives a function that keeps the last n lines, in memory for twice as many at most. It
// copies them.
func (l *lastLines) adder(n int) func([]byte) error {
	return func(b []byte) error {
		if n <= 0 {
			return nil
		}
		if len(l.lines)-n >= n { // 2*n may be more than an int holds
			l.lines = append(l.lines[:0], l.lines[len(l.lines)-n:]...)
		}
		l.lines = append(l.lines, slices.Clone(b))
		return nil
	}
}

// each reads a file that was put aside. One that is gone by now is too old to matter. Its last line
// counts although it may have no end: nothing more is written to that file.
func each(name string, line func([]byte) error) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	t := &tail{line: line}
	defer t.close()
	t.open(f)
	if err := t.read(); err != nil {
		return err
	}
	return t.finish()
}

// read takes what there is. It ends where the file does now. A line without its end stays in part
// for the next call.
func (t *tail) read() error {
	if t.f == nil {
		return nil
	}
	for {
		b, err := t.r.ReadSlice('\n')
		whole := len(b) > 0 && b[len(b)-1] == '\n'
		t.part = append(t.part, b...)
		if whole || len(t.part) >= maxLine {
			if err := t.finish(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// finish takes what there is of the last line as one. It takes carriage returns off as well, and
// passes over lines that are empty.
func (t *tail) finish() error {
	b := t.part
	t.part = t.part[:0]
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	if len(b) == 0 {
		return nil
	}
	return t.line(b)
}

// follow goes on with what is added, and with the new log when this one was put aside. The end of
// ctx is the usual one, and no error.
func (t *tail) follow(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if err := t.next(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// next takes what was added. The log may have been renamed, or cut: then what is left of it comes
// before the new one. A log that was cut shows by its size, which is less than what was read of it.
func (t *tail) next() error {
	now, err := os.Stat(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return t.read()
	}
	if err != nil {
		return err
	}
	same := false
	if t.f != nil {
		info, err := t.f.Stat()
		if err != nil {
			return err
		}
		at, err := t.f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		same = os.SameFile(info, now) && now.Size() >= at
	}
	if err := t.read(); err != nil || same {
		return err
	}
	if err := t.finish(); err != nil {
		return err
	}
	f, err := os.Open(t.path)
	if errors.Is(err, fs.ErrNotExist) { // it is put aside again
		return nil
	}
	if err != nil {
		return err
	}
	t.open(f)
	return t.read()
}
