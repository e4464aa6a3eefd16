package scan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"georep/internal/beneath"
	"georep/marker/statefile"
	"georep/marker/tree"
)

// ownMax bounds each of the two generations of OwnMarks.
const ownMax = 128 << 10

// Settled is how old an mtime must be so that a further write would give another one, even where the kernel's file
// times go by ticks.
const Settled = 20 * time.Millisecond

// OwnMarks remembers which ctimes our own marks made, so that the next scan does not take them for changes. Forgetting
// one costs a further mark, never a change: it is remembered only when nothing else can have happened meanwhile. What
// remains is an xattr, and only an xattr, that somebody sets between a mark and our look at its ctime, or after that in the
// same tick of the clock that ctimes go by. It may be used from any goroutine.
type OwnMarks struct {
	mu         sync.Mutex
	young, old map[tree.Inode]ownMark
}

// ownMark is the ctime, and with it what else a stat told then (TimesOf).
type ownMark struct {
	ctime beneath.Time
	all   uint64
}

// Has tells whether the entry's ctime is one of ours.
func (o *OwnMarks) Has(st *beneath.Stat) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := tree.InodeOf(st)
	t, ok := o.young[k]
	if !ok {
		t, ok = o.old[k]
	}
	return ok && t.ctime == st.Ctime && t.all == TimesOf(st) && !TooYoung(st, time.Unix(t.ctime.Sec, int64(t.ctime.Nsec)))
}

// Add remembers a mark, given what the entry was before and after it, and tells whether it does. It
// remembers nothing where anything else changed between the two looks, or where the file was
// written so lately that the next write might give it the same mtime.
func (o *OwnMarks) Add(before, after *beneath.Stat, now time.Time) bool {
	if !sameButCtime(before, after) || TooYoung(after, now) {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.young == nil || len(o.young) >= ownMax {
		o.young, o.old = map[tree.Inode]ownMark{}, o.young
	}
	o.young[tree.InodeOf(after)] = ownMark{after.Ctime, TimesOf(after)}
	return true
}

// Forget makes Has answer no for an inode.
func (o *OwnMarks) Forget(st *beneath.Stat) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.young, tree.InodeOf(st))
	delete(o.old, tree.InodeOf(st))
}

// TooYoung tells whether a file may have been written in the same tick as t.
func TooYoung(st *beneath.Stat, t time.Time) bool {
	return t.Sub(time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec))).Abs() < Settled
}

// sameButCtime tells whether nothing but the ctime differs, of all that a mark leaves as it is.
func sameButCtime(a, b *beneath.Stat) bool {
	return a.Dev == b.Dev && a.Ino == b.Ino && a.Mtime == b.Mtime && a.Mode == b.Mode && a.UID == b.UID &&
		a.GID == b.GID && a.Nlink == b.Nlink && a.Size == b.Size
}

// ownRecord is the size of one mark in the file: device, inode, seconds, nanoseconds, TimesOf.
const ownRecord = 36

// Save writes those whose ctime is not before since, which are the ones that the next scan can
// meet. It is not synced: a file that a crash leaves out of date costs further marks. The error is
// that of writing it.
func (o *OwnMarks) Save(files statefile.FS, path string, since time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b []byte
	for _, generation := range []map[tree.Inode]ownMark{o.old, o.young} {
		for k, mark := range generation {
			t := mark.ctime
			if time.Unix(t.Sec, int64(t.Nsec)).Before(since) {
				continue
			}
			b = binary.BigEndian.AppendUint64(b, k.Dev)
			b = binary.BigEndian.AppendUint64(b, k.Ino)
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

// Load reads what save wrote. No file is no marks; the tail of a cut file is ignored.
func (o *OwnMarks) Load(files statefile.FS, path string) error {
	b, err := files.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load own marks: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.old = map[tree.Inode]ownMark{}
	for ; len(b) >= ownRecord; b = b[ownRecord:] {
		k := tree.Inode{Dev: binary.BigEndian.Uint64(b), Ino: binary.BigEndian.Uint64(b[8:])}
		ctime := beneath.Time{Sec: int64(binary.BigEndian.Uint64(b[16:])), Nsec: binary.BigEndian.Uint32(b[24:])}
		o.old[k] = ownMark{ctime, binary.BigEndian.Uint64(b[28:])}
	}
	return nil
}
