package scan

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"sort"
	"sync"

	"georep/internal/beneath"
)

// This file is about file systems that others change too, over the network or behind FUSE. Their times come from other clocks,
// so that a ctime which is older than a mark proves nothing: whoever wrote it may be late. There a scan goes by the times that
// it noted when it looked last: whatever has others now has changed (invariant 19).
//
// The notes are in one file, to which a scan appends the entries of the directories in which something changed. In memory is
// where those of a directory begin, and the note of the directory itself. A note that is lost, torn or older than it should be
// costs a further mark, never a change. So nothing is synced for it.

// Times are the notes. They may be used from any goroutine; nil has none, and needs none.
type Times struct {
	Path string
	Warn func(error)

	// mu guards what follows, and is held over reads and writes of the file.
	mu   sync.Mutex
	file *os.File
	size int64
	dirs map[uint64]*dirNote
	all  bool // a whole scan has noted everything: what has no note is new
}

// dirNote is what is known of one directory, by beneath.Stat.Number.
type dirNote struct {
	self  uint64 // its own note; 0: none
	at    int64  // where those of its entries are
	count uint32 // how many there are
	have  bool
}

// seen is one entry that is no directory: its number, and a digest of its times. 0 stands for one that is to be marked again.
type seen struct{ number, times uint64 }

// Records of the file: a kind, a directory's number, a count, as many notes of 16 bytes, and a CRC-32C of all that.
const (
	entriesRecord byte = 'e' // the entries of a directory
	selfRecord    byte = 'd' // one note: of the directory itself
	allRecord     byte = 'a' // the end of the first whole scan

	recordHead = 1 + 8 + 4
	noteSize   = 16
	// compactAfter is how much of the file may be out of date before it is written anew.
	compactAfter = 4 << 20
)

// TimesOf is never 0. What else a stat tells is in it, too: a change in the tick of our own mark leaves the times as they are.
func TimesOf(st *beneath.Stat) uint64 {
	h := uint64(14695981039346656037) // FNV-1a, a word at a time
	for _, v := range [...]uint64{uint64(st.Ctime.Sec), uint64(st.Ctime.Nsec), uint64(st.Mtime.Sec), uint64(st.Mtime.Nsec),
		uint64(st.Size), uint64(st.Mode), uint64(st.UID), uint64(st.GID), uint64(st.Nlink)} {
		h = (h ^ v) * 1099511628211
		h ^= h >> 29
	}
	return max(h, 1)
}

// Open reads the notes of the scans before. What cannot be read has no notes. It cuts off what a
// power cut left behind the last whole record. The error is that of opening the file: without notes
// there is no going by them.
func (c *Times) Open() (err error) {
	c.dirs = map[uint64]*dirNote{}
	if c.file, err = os.OpenFile(c.Path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("open the notes of times: %w", err)
	}
	r := bufio.NewReaderSize(c.file, 1<<20)
	for {
		kind, number, notes, n, err := readRecord(r)
		if err != nil {
			break // its end, or where a power cut left it
		}
		c.took(kind, number, notes, c.size)
		c.size += n
	}
	return c.file.Truncate(c.size)
}

// took notes what a record at that place in the file says. It is called with mu held, or before anybody else knows c.
func (c *Times) took(kind byte, number uint64, notes []seen, at int64) {
	if kind == allRecord {
		c.all = true
		return
	}
	d := c.dirs[number]
	if d == nil {
		d = &dirNote{}
		c.dirs[number] = d
	}
	if kind == selfRecord && len(notes) == 1 {
		d.self = notes[0].times
		return
	}
	d.at, d.count, d.have = at+recordHead, uint32(len(notes)), true
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errRecord = errors.New("damaged record")

// readRecord reads one record and checks it. size is how long it is in the file. After an error
// nothing that follows can be found.
func readRecord(r io.Reader) (kind byte, number uint64, notes []seen, size int64, err error) {
	var head [recordHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, nil, 0, err
	}
	count := binary.BigEndian.Uint32(head[9:])
	if count > 1<<28 {
		return 0, 0, nil, 0, errRecord
	}
	sum := crc32.Checksum(head[:], castagnoli)
	notes, sum, err = readNotes(r, int(count), sum)
	if err != nil {
		return 0, 0, nil, 0, err
	}
	var tail [4]byte
	if _, err := io.ReadFull(r, tail[:]); err != nil {
		return 0, 0, nil, 0, err
	}
	if binary.BigEndian.Uint32(tail[:]) != sum {
		return 0, 0, nil, 0, errRecord
	}
	return head[0], binary.BigEndian.Uint64(head[1:]), notes, int64(recordHead + int(count)*noteSize + len(tail)), nil
}

// readNotes reads so many notes and goes on with the checksum. The count is not believed before the
// notes are there.
func readNotes(r io.Reader, count int, sum uint32) ([]seen, uint32, error) {
	var notes []seen // grows with what is there, not with what a damaged count says
	var b [noteSize]byte
	for range count {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, 0, err
		}
		sum = crc32.Update(sum, castagnoli, b[:])
		notes = append(notes, seen{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])})
	}
	return notes, sum, nil
}

// record puts a record together, its checksum last.
func record(kind byte, number uint64, notes []seen) []byte {
	b := make([]byte, 0, recordHead+len(notes)*noteSize+crc32.Size)
	b = append(b, kind)
	b = binary.BigEndian.AppendUint64(b, number)
	b = binary.BigEndian.AppendUint32(b, uint32(len(notes)))
	for _, n := range notes {
		b = binary.BigEndian.AppendUint64(b, n.number)
		b = binary.BigEndian.AppendUint64(b, n.times)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// append adds a record. Notes that cannot be written are those of another time for the next marker, which marks once more.
func (c *Times) append(kind byte, number uint64, notes []seen) {
	b := record(kind, number, notes)
	if _, err := c.file.WriteAt(b, c.size); err != nil {
		c.Warn(fmt.Errorf("note times in %s: %w", c.Path, err))
		delete(c.dirs, number)
		return
	}
	c.took(kind, number, notes, c.size)
	c.size += int64(len(b))
}

// entries are the notes of a directory's entries, by number.
func (c *Times) entries(number uint64) []seen {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.dirs[number]
	if d == nil || !d.have {
		return nil
	}
	notes, _, err := readNotes(bufio.NewReader(io.NewSectionReader(c.file, d.at, int64(d.count)*noteSize)), int(d.count), 0)
	if err != nil {
		c.Warn(fmt.Errorf("read times in %s: %w", c.Path, err))
		return nil
	}
	return notes
}

// list replaces the notes of a directory's entries. before is what entries gave; where nothing has
// changed nothing is written. It may reorder now.
func (c *Times) list(number uint64, before, now []seen) {
	if c == nil {
		return
	}
	slices.SortFunc(now, func(a, b seen) int {
		if a.number != b.number {
			return cmpUint(a.number, b.number)
		}
		return cmpUint(a.times, b.times) // of two names of one inode
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.dirs[number]; d == nil || !d.have || !slices.Equal(before, now) {
		c.append(entriesRecord, number, now)
	}
}

// cmpUint orders numbers without overflow.
func cmpUint(a, b uint64) int {
	if a < b {
		return -1
	} else if a > b {
		return 1
	}
	return 0
}

// timesIn finds an entry's note; 0: none.
func timesIn(notes []seen, number uint64) uint64 {
	i := sort.Search(len(notes), func(i int) bool { return notes[i].number >= number })
	if i < len(notes) && notes[i].number == number {
		return notes[i].times
	}
	return 0
}

// self is the note of a directory itself; 0: none.
func (c *Times) self(number uint64) uint64 {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.dirs[number]; d != nil {
		return d.self
	}
	return 0
}

// SetSelf notes a directory itself.
func (c *Times) SetSelf(number, times uint64) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.dirs[number]; d == nil || d.self != times {
		c.append(selfRecord, number, []seen{{number, times}})
	}
}

// complete tells whether what has no note is new.
func (c *Times) complete() bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

// Scanned is the end of a whole scan, which met those directories that met tells of.
func (c *Times) Scanned(met func(number uint64) bool) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.all {
		c.append(allRecord, 0, nil)
	}
	live := int64(0)
	for number, d := range c.dirs {
		if met(number) {
			live += int64(d.count+1)*noteSize + 2*(recordHead+crc32.Size)
		} else {
			delete(c.dirs, number)
		}
	}
	if c.size > compactAfter+3*live {
		if err := c.compact(); err != nil {
			c.Warn(fmt.Errorf("write %s anew: %w", c.Path, err))
		}
	}
}

// compact writes what counts into a new file. After an error the old file goes on to be used. mu is
// held.
func (c *Times) compact() error {
	next, err := os.OpenFile(c.Path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	n := &Times{Path: c.Path, Warn: c.Warn, file: next, dirs: map[uint64]*dirNote{}}
	for number, d := range c.dirs {
		if d.have {
			notes, _, err := readNotes(bufio.NewReader(io.NewSectionReader(c.file, d.at, int64(d.count)*noteSize)), int(d.count), 0)
			if err != nil {
				return errors.Join(err, next.Close())
			}
			n.append(entriesRecord, number, notes)
		}
		n.append(selfRecord, number, []seen{{number, d.self}})
	}
	n.append(allRecord, 0, nil)
	if len(n.dirs) < len(c.dirs) {
		return errors.Join(errors.New("some could not be written"), next.Close())
	}
	if err := os.Rename(c.Path+".new", c.Path); err != nil {
		return errors.Join(err, next.Close())
	}
	err = c.file.Close()
	c.file, c.size, c.dirs = next, n.size, n.dirs
	return err
}

// Close gives the file back. What it says stays.
func (c *Times) Close() error {
	if c == nil || c.file == nil {
		return nil
	}
	return c.file.Close()
}
