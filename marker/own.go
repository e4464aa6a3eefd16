package marker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"georep/internal/beneath"
	"georep/marker/statefile"
)

// ownMax bounds each of the two generations of ownMarks.
const ownMax = 128 << 10

// settled is how old an mtime must be so that a further write would give another one, even where the kernel's file
// times go by ticks.
const settled = 20 * time.Millisecond

type inode struct{ dev, ino uint64 }

// ownMarks remembers which ctimes our own marks made, so that the next scan does not take them for changes. Forgetting
// one costs a further mark, never a change: it is remembered only when nothing else can have happened meanwhile. What
// remains is an xattr, and only an xattr, that somebody sets between a mark and our look at its ctime, or after that in the
// same tick of the clock that ctimes go by. It may be used from any goroutine.
type ownMarks struct {
	mu         sync.Mutex
	young, old map[inode]ownMark
}

// ownMark is the ctime, and with it what else a stat told then (timesOf).
type ownMark struct {
	ctime beneath.Time
	all   uint64
}

// has tells whether the entry's ctime is one of ours.
func (o *ownMarks) has(st *beneath.Stat) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := inode{st.Dev, st.Ino}
	t, ok := o.young[k]
	if !ok {
		t, ok = o.old[k]
	}
	return ok && t.ctime == st.Ctime && t.all == timesOf(st) && !tooYoung(st, time.Unix(t.ctime.Sec, int64(t.ctime.Nsec)))
}

// add remembers a mark, given what the entry was before and after it, and tells whether it does.
func (o *ownMarks) add(before, after *beneath.Stat, now time.Time) bool {
	if !sameButCtime(before, after) || tooYoung(after, now) {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.young == nil || len(o.young) >= ownMax {
		o.young, o.old = map[inode]ownMark{}, o.young
	}
	o.young[inode{after.Dev, after.Ino}] = ownMark{after.Ctime, timesOf(after)}
	return true
}

// forget makes has answer no for an inode.
func (o *ownMarks) forget(st *beneath.Stat) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.young, inode{st.Dev, st.Ino})
	delete(o.old, inode{st.Dev, st.Ino})
}

// tooYoung tells whether a file may have been written in the same tick as t.
func tooYoung(st *beneath.Stat, t time.Time) bool {
	return t.Sub(time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec))).Abs() < settled
}

func sameButCtime(a, b *beneath.Stat) bool {
	return a.Dev == b.Dev && a.Ino == b.Ino && a.Mtime == b.Mtime && a.Mode == b.Mode && a.UID == b.UID &&
		a.GID == b.GID && a.Nlink == b.Nlink && a.Size == b.Size
}

// ownRecord is the size of one mark in the file: device, inode, seconds, nanoseconds, timesOf.
const ownRecord = 36

// save writes those whose ctime is not before since, which are the ones that the next scan can meet.
func (o *ownMarks) save(files statefile.FS, path string, since time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b []byte
	for _, generation := range []map[inode]ownMark{o.old, o.young} {
		for k, mark := range generation {
			t := mark.ctime
			if time.Unix(t.Sec, int64(t.Nsec)).Before(since) {
				continue
			}
			b = binary.BigEndian.AppendUint64(b, k.dev)
			b = binary.BigEndian.AppendUint64(b, k.ino)
			b = binary.BigEndian.AppendUint64(b, uint64(t.Sec))
			b = binary.BigEndian.AppendUint32(b, t.Nsec)
			b = binary.BigEndian.AppendUint64(b, mark.all)
		}
	}
	if err := files.Replace(path, b, false); err != nil {
		return fmt.Errorf("save own marks: %w", err)
	}
	return nil
}

// load reads what save wrote. No file is no marks; the tail of a cut file is ignored.
func (o *ownMarks) load(files statefile.FS, path string) error {
	b, err := files.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load own marks: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.old = map[inode]ownMark{}
	for ; len(b) >= ownRecord; b = b[ownRecord:] {
		k := inode{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
		ctime := beneath.Time{Sec: int64(binary.BigEndian.Uint64(b[16:])), Nsec: binary.BigEndian.Uint32(b[24:])}
		o.old[k] = ownMark{ctime, binary.BigEndian.Uint64(b[28:])}
	}
	return nil
}
