package gfidindex

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"georep/internal/beneath"
)

// Index is what is remembered. Its methods may be called from any goroutine. compacting comes before mu, which guards all but files
// and limit.
type Index struct {
	files
	// limit is set by tests only, before the first use.
	limit int // freshMax

	compacting sync.Mutex // one Compact at a time

	mu     sync.Mutex
	closed bool
	fresh  map[Key]Place // what is in the log, and not in a run yet
	// paths are those of some directories, with all above them, as they follow from what is remembered.
	paths map[Key]string
	journal
	sorted
}

// journal is the log that is written to. A log and the map fresh hold the same; the log is for the
// next start.
type journal struct {
	log    *logFile
	end    int64  // of log
	first  uint64 // the oldest log that no run holds
	serial uint64 // of log
	// noted is bounded by what one group of operations changes.
	noted []byte // of what is fresh, not written yet
}

// sorted are the runs, and what they replace. It is under mu, but for the files of the runs, which
// never change and may be read without it.
type sorted struct {
	runs    []*run   // oldest first
	frozen  int      // so many of the oldest runs are being compacted
	base    int64    // slots when compacting was last worth it
	replace []string // files that may go once what took their place is durable
	buf     []byte
}

// freshMax is how many entries are kept in memory.
const freshMax = 1 << 15

// ErrClosed is what a closed Index gives.
var ErrClosed = errors.New("the index of GFIDs is closed")

// Open reads what dir holds, which is the caller's to close, after the Index. before, if it is set,
// is asked before each change to the file system, with the operation and the name; its error is the
// operation's. An error says that the directory cannot be read; damaged files in it are none, they
// are removed.
func Open(dir *beneath.Dir, before func(op, name string) error) (*Index, error) {
	x := &Index{files: files{dir, before}, limit: freshMax, fresh: map[Key]Place{}, paths: map[Key]string{}, sorted: sorted{buf: make([]byte, findBuffer)}}
	if err := x.load(); err != nil {
		x.Close()
		return nil, fmt.Errorf("open the index of GFIDs: %w", err)
	}
	return x, nil
}

// Close forgets the descriptors. What was added is in files. It is idempotent.
func (x *Index) Close() {
	x.compacting.Lock()
	defer x.compacting.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	for _, r := range x.runs {
		r.file.Close()
	}
	x.log, x.runs = nil, nil
}

// Note remembers an entry, in memory until Commit. A later one of the same inode counts. It costs
// no I/O. One that is noted as it is already costs nothing at all.
func (x *Index) Note(e Entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if p, have := x.fresh[e.Key]; have && p == e.Place {
		return
	}
	if _, above := x.paths[e.Key]; above {
		clear(x.paths)
	}
	x.fresh[e.Key] = e.Place
	x.noted = e.append(x.noted)
}

// Commit writes what was noted. What an error means for the caller is nothing: some of it may be
// forgotten. It is one write for all that was noted since, and now and then the time of making a
// run.
func (x *Index) Commit() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return ErrClosed
	}
	if len(x.noted) == 0 {
		return nil
	}
	err := x.ask("write", logName(x.serial))
	if err == nil {
		err = x.log.WriteAt(x.noted, x.end)
	}
	if err == nil {
		x.end += int64(len(x.noted))
	}
	x.noted = x.noted[:0]
	// The same inodes may be told again and again, so that the log grows where the memory does not.
	if len(x.fresh) >= x.limit || x.end >= 4*int64(x.limit)*slotSize {
		err = errors.Join(err, x.flush())
	}
	return err
}

// Find tells where an inode was last said to be. It costs one read for each run, of which there are
// few, and nothing for what was noted lately.
func (x *Index) Find(k Key) (Place, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.find(k)
}

// find is Find with mu held.
func (x *Index) find(k Key) (p Place, ok bool) {
	if p, ok = x.fresh[k]; !ok {
		p, ok = x.sorted.find(k)
	}
	return p, ok && p.Name != ""
}

// Path follows the directories above an inode, and gives its path below the slave's root. It is as
// good as what was told: a directory that moved without a word gives a path that is wrong. ok is
// false where a directory on the way is not known, or where the way goes round.
func (x *Index) Path(k Key) (string, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p, ok := x.find(k)
	if !ok || p.Dir == Root {
		return p.Name, ok
	}
	dir, ok := x.dirPath(p.Dir)
	return beneath.Join(dir, p.Name), ok
}

// DirPath is Path for directories that may well be asked about again.
func (x *Index) DirPath(k Key) (string, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.dirPath(k)
}

// The paths on the way are kept for the next question. mu is held.
func (x *Index) dirPath(k Key) (path string, ok bool) {
	var above []Entry
	for seen := k; k != Root; {
		if path, ok = x.paths[k]; ok {
			break
		}
		p, ok := x.find(k)
		if !ok || len(above) > 0 && p.Dir == seen {
			return "", false // what was told at different times may go round in a circle
		}
		if n := len(above); n&(n-1) == 0 {
			seen = k
		}
		above = append(above, Entry{k, p})
		k = p.Dir
	}
	if len(x.paths)+len(above) > maxPaths {
		clear(x.paths)
	}
	for i := len(above) - 1; i >= 0; i-- {
		path = beneath.Join(path, above[i].Name)
		x.paths[above[i].Key] = path
	}
	return path, true
}

// maxPaths bounds the directories whose paths are kept.
const maxPaths = 4096

// Synced says that everything written before the call of a sync that succeeded is durable: what it
// replaced is removed. written is what Written gave before that sync. An error is that of removing
// files, which take room and nothing else.
func (x *Index) Synced(written int) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || written == 0 {
		return nil
	}
	var err error
	for _, name := range x.replace[:written] {
		err = errors.Join(err, x.unlink(name))
	}
	x.replace = slices.Delete(x.replace, 0, written)
	return err
}

// Written is for Synced. The caller asks before it begins the sync. What is replaced while the sync
// runs waits for the next one.
func (x *Index) Written() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.replace)
}

// flush turns the log into a run, and merges. mu is held. What cannot be written is forgotten. It
// takes the time of writing what was in memory, and now and then of merging runs. mu is held
// meanwhile.
func (x *Index) flush() error {
	fresh, first, last := x.fresh, x.first, x.serial
	x.fresh = map[Key]Place{}
	if err := x.newLog(last + 1); err != nil {
		x.end = 0
		return errors.Join(err, x.log.Truncate(0))
	}
	for s := first; s <= last; s++ {
		x.replace = append(x.replace, logName(s))
	}
	r, err := x.writeFresh(fresh, first, last)
	if err != nil {
		return err
	}
	x.runs = append(x.runs, r)
	for n := len(x.runs); n >= x.frozen+2 && x.runs[n-1].slots*2 >= x.runs[n-2].slots; n = len(x.runs) {
		lowest := n == 2
		r, err := x.merge(x.runs[n-2:], func(e *Entry) (bool, error) { return e.Name != "" || !lowest, nil })
		if err != nil {
			return err
		}
		x.swap(n-2, n, r)
	}
	return nil
}

// writeFresh makes a run of what was in memory. An error loses those entries, which is allowed.
func (x *Index) writeFresh(fresh map[Key]Place, first, last uint64) (*run, error) {
	w, err := x.newWriter()
	if err != nil {
		return nil, err
	}
	for _, k := range slices.Sorted(maps.Keys(fresh)) {
		if err := w.add(&Entry{k, fresh[k]}); err != nil {
			w.file.Close()
			return nil, err
		}
	}
	return w.finish(first, last, false)
}

// Compact removes what is not known any more, once that may be half: entries without a place, and
// those in directories without one. It takes about as long as reading all, and others go on
// meanwhile; live tells whether it may. Find and Commit go on meanwhile: the runs that it reads are
// frozen, so nothing else merges them. An error leaves them as they were.
func (x *Index) Compact(live func() bool) error {
	x.compacting.Lock()
	defer x.compacting.Unlock()
	runs := x.freeze()
	if len(runs) == 0 {
		return nil
	}
	known := map[Key]bool{Root: true}
	r, err := x.merge(runs, func(e *Entry) (bool, error) {
		if !live() {
			return false, ErrClosed
		}
		have, asked := known[e.Dir]
		if !asked {
			if len(known) > freshMax {
				known = map[Key]bool{Root: true}
			}
			_, have = x.Find(e.Dir)
			known[e.Dir] = have
		}
		return have && e.Name != "", nil
	})
	x.mu.Lock()
	defer x.mu.Unlock()
	x.frozen = 0
	if err != nil {
		return err
	}
	x.swap(0, len(runs), r)
	x.base = x.total()
	return nil
}

// freeze takes the runs that are worth to be compacted out of what is merged. What comes meanwhile
// goes into newer runs, which are merged among themselves.
func (x *Index) freeze() []*run {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.total() < 2*x.base+int64(x.limit) {
		return nil
	}
	x.frozen = len(x.runs)
	return slices.Clone(x.runs)
}
