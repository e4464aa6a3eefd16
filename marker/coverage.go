package marker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"sync"

	"georep/marker/statefile"

	"github.com/RoaringBitmap/roaring/v2/roaring64"
)

// coverage knows the directories of which all that changed up to the heartbeat is marked. What changed since, its ctime
// tells the next scan. Of a directory that is not covered no ctime tells: it was elsewhere, outside of the volume or just
// where a scan was not, when that changed. Directories go by beneath.Stat.Number. Where inotify tells, one that was made
// since the last scan is not covered either, which costs further marks where it changes while no marker runs. It may be
// used from any goroutine.
type coverage struct {
	path   string
	files  statefile.FS
	bumped *bumps // kept beside it, in a file of its own

	mu    sync.Mutex
	but   bool              // all are covered but these: everything is as new as the volume mark
	dirs  *roaring64.Bitmap // the directories
	met   *roaring64.Bitmap // those that the scan under way has met; nil where there is none
	dirty bool              // not saved like this
}

func newCoverage(path string, files statefile.FS) *coverage {
	return &coverage{path: path, files: files, dirs: roaring64.New(), bumped: newBumps(filepath.Dir(path), files)}
}

// has tells whether a directory is covered.
func (c *coverage) has(n uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dirs.Contains(n) != c.but
}

// add says that a directory is covered from now on.
func (c *coverage) add(n uint64) { c.set(n, true) }

// leave says that a directory is not in the volume any more, or was not for a while.
func (c *coverage) leave(n uint64) { c.set(n, false) }

func (c *coverage) set(n uint64, covered bool) {
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

// leaveAll says that of every directory.
func (c *coverage) leaveAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.met != nil {
		c.met.Clear()
	}
	c.but, c.dirs, c.dirty = false, roaring64.New(), true
}

// coverAll says that everything counts as changed up to now.
func (c *coverage) coverAll() {
	c.bumped.clear()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.but, c.dirs, c.dirty = true, roaring64.New(), true
}

// begin is the begin of a scan.
func (c *coverage) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met = roaring64.New()
}

// meet says that the scan lists a directory, and tells whether it did not before.
func (c *coverage) meet(n uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.met.CheckedAdd(n)
}

// unmeet says that it could not.
func (c *coverage) unmeet(n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met.Remove(n)
}

// isMet tells whether it did.
func (c *coverage) isMet(n uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.met.Contains(n)
}

// What a scan was.
type extent int

const (
	nothing extent = iota // it met not all that it had to
	parts                 // it met all of some directories, in which everything is marked
	whole                 // it met all
)

// end is the end of a scan.
func (c *coverage) end(e extent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	met := c.met
	c.met = nil
	switch {
	case e == nothing, e == whole && !c.but && c.dirs.Equals(met):
		return
	case e == whole:
		c.but, c.dirs = false, met
	case c.but:
		c.dirs.AndNot(met)
	default:
		c.dirs.Or(met)
	}
	c.dirty = true
}

// coverageVersion is the first byte of the file: how it is written.
const coverageVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// save makes it durable. It is done before the heartbeat goes there, which must not claim more than this one knows of:
// the version, whether all but these are covered, the bitmap in the format of its library, and a CRC-32C of all that.
func (c *coverage) save() error {
	if err := c.bumped.save(); err != nil {
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

// load reads what save wrote. Where there is nothing that can be read, nothing is covered, which costs further marks.
func (c *coverage) load() error {
	if err := c.bumped.load(); err != nil {
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
