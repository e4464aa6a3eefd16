package gfidindex

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

// logName is padded, so that names sort as their numbers do.
func logName(serial uint64) string { return fmt.Sprintf("log-%016x", serial) }

// files is the directory of the index, and every change to it.
type files struct {
	dir    *beneath.Dir
	before func(op, name string) error
}

// ask asks before a change.
func (x *files) ask(op, name string) error {
	if x.before == nil {
		return nil
	}
	return x.before(op, name)
}

// unlink removes a file, if it is there.
func (x *files) unlink(name string) error {
	err := x.ask("unlink", name)
	if err == nil {
		err = x.dir.Unlink(name)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// logFile is a log by its name. It is open only while it is written: a file that is open for
// writing would keep the slave's file system from being made read-only. Each operation opens it by
// its name.
type logFile struct {
	dir  *beneath.Dir
	name string
}

// open opens the log for one operation, and closes it.
func (l *logFile) open(do func(f *os.File) error) error {
	f, err := l.dir.OpenFile(l.name, unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

// WriteAt writes b at off.
func (l *logFile) WriteAt(b []byte, off int64) error {
	return l.open(func(f *os.File) error { _, err := f.WriteAt(b, off); return err })
}

// Truncate cuts the log.
func (l *logFile) Truncate(size int64) error {
	return l.open(func(f *os.File) error { return f.Truncate(size) })
}

// span is a run by its name.
type span struct{ from, to uint64 }

// load reads what is there. What is not whole, or not ours, is removed; so is, after a sync, what
// something else holds. After a crash there may be a run and the logs that it was made of: the run
// counts, and the logs go after the next sync.
func (x *Index) load() error {
	logs, spans, err := x.list()
	if err != nil {
		return err
	}
	// The widest of those that begin at the same place come first, so that what one holds is met after it.
	slices.SortFunc(spans, func(a, b span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to)) })
	held := func(serial uint64) bool { return len(x.runs) > 0 && serial <= x.runs[len(x.runs)-1].to }
	for _, s := range spans {
		if held(s.to) {
			x.replace = append(x.replace, runName(s.from, s.to))
			continue
		}
		r, err := openRun(x.dir, s.from, s.to)
		if errors.Is(err, errTorn) {
			err = x.unlink(runName(s.from, s.to))
		}
		if err != nil {
			return err
		}
		if r != nil {
			x.runs = append(x.runs, r)
		}
	}
	x.base = x.total()
	slices.Sort(logs)
	for len(logs) > 0 && held(logs[0]) {
		x.replace, logs = append(x.replace, logName(logs[0])), logs[1:]
	}
	return x.loadLogs(logs)
}

// list reads the names. A run that was being written when the session ended is removed.
func (x *files) list() (logs []uint64, spans []span, err error) {
	d, err := x.dir.OpenDir("") // a listing of its own
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	var other []string
	err = d.List(func(e beneath.Entry) error {
		var s span
		if n, _ := fmt.Sscanf(e.Name, "run-%x-%x", &s.from, &s.to); n == 2 && e.Name == runName(s.from, s.to) && s.from <= s.to {
			spans = append(spans, s)
		} else if n, _ := fmt.Sscanf(e.Name, "log-%x", &s.from); n == 1 && e.Name == logName(s.from) {
			logs = append(logs, s.from)
		} else if e.Name == newName {
			other = append(other, e.Name)
		}
		return nil
	})
	for _, name := range other {
		err = errors.Join(err, x.unlink(name))
	}
	return logs, spans, err
}

// loadLogs reads the logs, of which the last is gone on with. Entries that are damaged are passed
// over, a slot at a time.
func (x *Index) loadLogs(logs []uint64) error {
	if len(logs) == 0 {
		next := uint64(1)
		if n := len(x.runs); n > 0 {
			next = x.runs[n-1].to + 1
		}
		return x.newLog(next)
	}
	for _, s := range logs {
		f, err := x.dir.OpenFile(logName(s), unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		x.log, x.serial = &logFile{x.dir, logName(s)}, s
		if err := errors.Join(x.loadLog(f), f.Close()); err != nil {
			return err
		}
	}
	x.first = logs[0]
	return nil
}

// loadLog reads one. What a crash left at its end is written over.
func (x *Index) loadLog(f *os.File) error {
	x.end = 0
	buf, have := make([]byte, 256<<10), 0
	for {
		n, err := f.ReadAt(buf[have:], x.end+int64(have))
		if err != nil && err != io.EOF {
			return err
		}
		have += n
		used := x.take(buf[:have], err == io.EOF)
		x.end += int64(used)
		have = copy(buf, buf[used:have])
		if err == io.EOF {
			return nil
		}
	}
}

// take remembers the entries in b, and tells how much of it is done with: all but what may go on behind its end.
func (x *Index) take(b []byte, last bool) (used int) {
	for len(b)-used >= slotSize && (last || len(b)-used >= maxSlots*slotSize) {
		e, n, ok := cut(b[used:])
		if ok {
			x.fresh[e.Key] = e.Place
		}
		used += n
	}
	return used
}

// newLog begins another log, which nothing is in. The one before stays until its entries are in a
// durable run.
func (x *Index) newLog(serial uint64) error {
	if err := x.ask("create", logName(serial)); err != nil {
		return err
	}
	f, err := x.dir.OpenFile(logName(serial), unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	x.log, x.end, x.first, x.serial = &logFile{x.dir, logName(serial)}, 0, serial, serial
	return nil
}
