package coverage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"georep/internal/beneath"
	"georep/marker/statefile"
)

// Bumps knows the directories that changed without a mark. When one of them takes a mark in the end, the xtime that it had
// before, none, does not tell workers up to where they know of its changes. It may be used from any goroutine.
type Bumps struct {
	path  string
	files statefile.FS

	mu    sync.Mutex
	dirs  *roaring64.Bitmap // by beneath.Stat.Number
	all   bool              // which they are is not known: any may be one
	dirty bool              // not saved like this
}

// newBumps has none, until Load reads them.
func newBumps(dir string, files statefile.FS) *Bumps {
	return &Bumps{path: filepath.Join(dir, BumpedFile), files: files, dirs: roaring64.New()}
}

// Add says that one changed.
func (b *Bumps) Add(n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirty = b.dirs.CheckedAdd(n) || b.dirty
}

// Clear is for when everything counts as changed.
func (b *Bumps) Clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirty = b.dirty || b.all || !b.dirs.IsEmpty()
	b.dirs, b.all = roaring64.New(), false
}

// Has tells whether d is one of them. It costs nothing where there are none. A directory that
// cannot be looked at counts as one: its hint then tells of it as a whole, which costs a listing.
func (b *Bumps) Has(d *beneath.Dir, dev uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all || b.dirs.IsEmpty() {
		return b.all
	}
	st, err := d.Stat("")
	return err != nil || b.dirs.Contains(st.Number(dev))
}

// Save makes it durable. It is done before the heartbeat goes there, as with coverage.
func (b *Bumps) Save() error {
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

// Load reads what save wrote. A damaged file says that any directory may be one. That is forgotten
// by the next Clear.
func (b *Bumps) Load() error {
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
