package marker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"georep/internal/beneath"
	"georep/marker/statefile"
	"georep/marker/xtime"
)

// This file is about directories that take no mark: other xattrs fill the inode's room, or its owner is over quota. A crawl
// goes by the ctime of a directory that carries no xtime, but a change further down does not alter that. So the marker alters
// it instead, which needs no room: a chown that changes neither owner nor group. The kernel raises no event for that.

const (
	unchanged = 1<<32 - 1 // an owner, or a group, that chown leaves as it is
	bumpTries = 4
	bumpPause = 5 * time.Millisecond // two ticks of most kernels' clock for file times
)

// bump gives a directory that carries no xtime, and did not take t, a later ctime than it had: a crawl that read the old one
// comes again. It tells whether it could. It is called with mu held.
func (c *core) bump(d *beneath.Dir, name string, t xtime.Time) bool {
	if name != "" {
		pin, err := d.Pin(name)
		if err != nil {
			return false
		}
		defer pin.Close()
		d = pin
	}
	st, err := d.Stat("")
	if err != nil || !st.IsDir() {
		return false // of a file the chown would take its setuid bits
	}
	if x, err := d.Xtime("", &c.names); err != nil || x != 0 {
		return false
	}
	before := max(ctimeOf(&st), c.volumeMark)
	for range bumpTries {
		if d.Chown("", unchanged, unchanged) != nil {
			return false
		}
		if st, err = d.Stat(""); err != nil {
			return false
		}
		if ctimeOf(&st) > before && ctimeOf(&st) >= t {
			break // as an xtime would be, it is not older than any below it
		}
		_ = pause(context.Background(), bumpPause)
	}
	if ctimeOf(&st) <= before {
		return false
	}
	c.cover.bumped.add(st.Number(c.rootStat.Dev))
	return true
}

func ctimeOf(st *beneath.Stat) xtime.Time {
	return xtime.FromTime(time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec)))
}

// bumps knows the directories that changed without a mark. When one of them takes a mark in the end, the xtime that it had
// before, none, does not tell workers up to where they know of its changes. It may be used from any goroutine.
type bumps struct {
	path  string
	files statefile.FS

	mu    sync.Mutex
	dirs  *roaring64.Bitmap // by beneath.Stat.Number
	all   bool              // which they are is not known: any may be one
	dirty bool              // not saved like this
}

func newBumps(dir string, files statefile.FS) *bumps {
	return &bumps{path: filepath.Join(dir, bumpsFile), files: files, dirs: roaring64.New()}
}

func (b *bumps) add(n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirty = b.dirs.CheckedAdd(n) || b.dirty
}

// clear is for when everything counts as changed.
func (b *bumps) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirty = b.dirty || b.all || !b.dirs.IsEmpty()
	b.dirs, b.all = roaring64.New(), false
}

// has tells whether d is one of them. It costs nothing where there are none.
func (b *bumps) has(d *beneath.Dir, dev uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all || b.dirs.IsEmpty() {
		return b.all
	}
	st, err := d.Stat("")
	return err != nil || b.dirs.Contains(st.Number(dev))
}

// save makes it durable. It is done before the heartbeat goes there, as with coverage.
func (b *bumps) save() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.dirty {
		return nil
	}
	content, err := b.dirs.MarshalBinary()
	if err == nil {
		content = binary.BigEndian.AppendUint32(content, crc32.Checksum(content, castagnoli))
		err = b.files.Replace(b.path, content, true)
	}
	if err != nil {
		return fmt.Errorf("write which directories took no mark: %w", err)
	}
	b.dirty = false
	return nil
}

// load reads what save wrote.
func (b *bumps) load() error {
	content, err := b.files.Read(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read which directories took no mark: %w", err)
	}
	dirs, n := roaring64.New(), len(content)-crc32.Size
	b.mu.Lock()
	defer b.mu.Unlock()
	if n < 0 || crc32.Checksum(content[:n], castagnoli) != binary.BigEndian.Uint32(content[n:]) ||
		dirs.UnmarshalBinary(content[:n]) != nil {
		b.all = true
		return nil
	}
	b.dirs = dirs
	return nil
}
