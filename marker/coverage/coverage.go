// Package coverage knows of which directories a scan may go by ctimes, and which changed without a mark.
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

	"georep/marker/statefile"
)

// Coverage knows the directories of which all that changed up to the heartbeat is marked. What changed since, its ctime
// tells the next scan. Of a directory that is not covered no ctime tells: it was elsewhere, outside of the volume or just
// where a scan was not, when that changed. Directories go by beneath.Stat.Number. Where inotify tells, one that was made
// since the last scan is not covered either, which costs further marks where it changes while no marker runs. It may be
// used from any goroutine.
type Coverage struct {
	path   string
	files  statefile.FS
	Bumped *Bumps // kept beside it, in a file of its own

	mu    sync.Mutex
	but   bool              // all are covered but these: everything is as new as the volume mark
	dirs  *roaring64.Bitmap // the directories
	met   *roaring64.Bitmap // those that the scan under way has met; nil where there is none
	dirty bool              // not saved like this
}

// The files of the volume's runtime directory.
const (
	File       = "marker.coverage"
	BumpedFile = "marker.bumps"
)

// New has nothing covered, until it is loaded, and keeps its files in dir.
func New(dir string, files statefile.FS) *Coverage {
	return &Coverage{path: filepath.Join(dir, File), files: files, dirs: roaring64.New(), Bumped: newBumps(dir, files)}
}

// Has tells whether a directory is covered.
func (c *Coverage) Has(n uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dirs.Contains(n) != c.but
}

// Add says that a directory is covered from now on.
func (c *Coverage) Add(n uint64) { c.set(n, true) }

// Leave says that a directory is not in the volume any more, or was not for a while.
func (c *Coverage) Leave(n uint64) { c.set(n, false) }

// A scan that is under way has to learn of it as well, since its own set replaces the other one at
// the end.
func (c *Coverage) set(n uint64, covered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.met != nil {
		put(c.met, n, covered)
	}
	if put(c.dirs, n, covered != c.but) {
		c.dirty = true
	}
}

// put adds n, or removes it, and tells whether that changed anything.
func put(dirs *roaring64.Bitmap, n uint64, in bool) bool {
	if in {
		return dirs.CheckedAdd(n)
	}
	return dirs.CheckedRemove(n)
}

// LeaveAll says that of every directory.
func (c *Coverage) LeaveAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.met != nil {
		c.met.Clear()
	}
	c.but, c.dirs, c.dirty = false, roaring64.New(), true
}

// CoverAll says that everything counts as changed up to now. It goes with a new volume mark: from
// then on no directory is older than that, so there is nothing that a ctime would have to tell.
func (c *Coverage) CoverAll() {
	c.Bumped.Clear()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.but, c.dirs, c.dirty = true, roaring64.New(), true
}

// Begin says that a scan begins. One scan at a time may be under way; End is called for each that
// was begun, whatever came of it.
func (c *Coverage) Begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met = roaring64.New()
}

// Meet says that the scan lists a directory, and tells whether it did not before. Two ways may lead
// to one directory while it moves; the second finds it met and leaves it alone.
func (c *Coverage) Meet(n uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.met.CheckedAdd(n)
}

// Unmeet says that it could not.
func (c *Coverage) Unmeet(n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met.Remove(n)
}

// IsMet tells whether it did.
func (c *Coverage) IsMet(n uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.met.Contains(n)
}

// Extent is how much of the volume a scan met.
type Extent int

const (
	Nothing Extent = iota // it met not all that it had to
	Parts                 // it met all of some directories, in which everything is marked
	Whole                 // it met all
)

// End says that the scan has ended, and how much it met. After Nothing the coverage is as it was: a
// scan that failed half-way must not vouch for what it met, whose marks may not be durable.
func (c *Coverage) End(e Extent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	met := c.met
	c.met = nil
	switch {
	case e == Nothing, e == Whole && !c.but && c.dirs.Equals(met):
		return
	case e == Whole:
		c.but, c.dirs = false, met
	case c.but:
		c.dirs.AndNot(met)
	default:
		c.dirs.Or(met)
	}
	c.dirty = true
}

// coverageVersion is the first byte of the file: how it is written. A file of another version is
// read as none.
const coverageVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Save makes it durable. It is done before the heartbeat goes there, which must not claim more than this one knows of:
// the version, whether all but these are covered, the bitmap in the format of its library, and a CRC-32C of all that.
func (c *Coverage) Save() error {
	if err := c.Bumped.Save(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dirty {
		return nil
	}
	b, err := c.dirs.MarshalBinary()
	if err != nil {
		return err
	}
	content := []byte{coverageVersion, 0}
	if c.but {
		content[1] = 1
	}
	content = append(content, b...)
	content = binary.BigEndian.AppendUint32(content, crc32.Checksum(content, castagnoli))
	if err := c.files.Replace(c.path, content, true); err != nil {
		return fmt.Errorf("write which directories the marker has met: %w", err)
	}
	c.dirty = false
	return nil
}

// Load reads what save wrote. Where there is nothing that can be read, nothing is covered, which
// costs further marks. An error is one of the disk: the file may be good, and the marker must not
// begin without it.
func (c *Coverage) Load() error {
	if err := c.Bumped.Load(); err != nil {
		return err
	}
	content, err := c.files.Read(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read which directories the marker has met: %w", err)
	}
	n := len(content) - crc32.Size
	if n < 2 || content[0] != coverageVersion || crc32.Checksum(content[:n], castagnoli) != binary.BigEndian.Uint32(content[n:]) {
		return nil
	}
	dirs := roaring64.New()
	if err := dirs.UnmarshalBinary(content[2:n]); err != nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.but, c.dirs = content[1] == 1, dirs
	return nil
}
