package gfidindex

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

// run is a sorted file: slots, then the key of every 256th of them, then a trailer. It is never
// changed. The fence is in memory: 8 bytes for 256 slots. Reading is by position, so any goroutine
// may use the file.
type run struct {
	file     *os.File
	from, to uint64 // the logs that it holds
	slots    int64
	fence    []Key
}

const (
	fenceStep   = 256
	trailerSize = 64
	magic       = "georep places 1\n"
)

var errTorn = errors.New("not whole")

// runName says which logs it holds, so nothing else has to be written down.
func runName(from, to uint64) string { return fmt.Sprintf("run-%016x-%016x", from, to) }

// openRun opens a run; one that was not written to its end gives errTorn.
func openRun(dir *beneath.Dir, from, to uint64) (*run, error) {
	f, err := dir.OpenFile(runName(from, to), unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	r := &run{file: f, from: from, to: to}
	if err := r.readEnd(); err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

// readEnd reads trailer and fence.
func (r *run) readEnd() error {
	st, err := r.file.Stat()
	if err != nil {
		return err
	}
	size := st.Size()
	if size < trailerSize {
		return errTorn
	}
	var t [trailerSize]byte
	if _, err := r.file.ReadAt(t[:], size-trailerSize); err != nil {
		return err
	}
	slots := int64(binary.BigEndian.Uint64(t[len(magic):]))
	fences := (slots + fenceStep - 1) / fenceStep
	if string(t[:len(magic)]) != magic || slots < 0 || slots > size/slotSize || size != slots*slotSize+fences*8+trailerSize {
		return errTorn
	}
	b := make([]byte, fences*8)
	if _, err := r.file.ReadAt(b, slots*slotSize); err != nil {
		return err
	}
	r.slots, r.fence = slots, make([]Key, fences)
	for i := range r.fence {
		r.fence[i] = keyAt(b[i*8:])
	}
	return nil
}

// find looks for a key with one read. buf is lent for that. A damaged slot is none. An error of
// reading is no answer either.
func (r *run) find(k Key, buf []byte) (Place, bool) {
	i := sort.Search(len(r.fence), func(i int) bool { return r.fence[i] >= k })
	first := int64(max(0, i-1)) * fenceStep
	n := min(r.slots-first, fenceStep+maxSlots)
	if n <= 0 {
		return Place{}, false
	}
	b := buf[:n*slotSize]
	if _, err := r.file.ReadAt(b, first*slotSize); err != nil {
		return Place{}, false
	}
	at := sort.Search(int(n), func(i int) bool { return keyAt(b[i*slotSize:]) >= k })
	if at == int(n) || keyAt(b[at*slotSize:]) != k {
		return Place{}, false
	}
	e, _, ok := cut(b[at*slotSize:])
	return e.Place, ok
}

// findBuffer is the size of what find reads.
const findBuffer = (fenceStep + maxSlots) * slotSize

// reader gives a run's entries in order.
type reader struct {
	b    *bufio.Reader
	next Entry
	more bool
}

// entries begins at the first entry. One reader is for one goroutine.
func (r *run) entries() *reader {
	out := &reader{b: bufio.NewReaderSize(io.NewSectionReader(r.file, 0, r.slots*slotSize), 64<<10)}
	out.advance()
	return out
}

// advance goes to the next entry that can be read. An error ends the run: what is behind it is lost, which is allowed.
func (r *reader) advance() {
	for {
		b, _ := r.b.Peek(maxSlots * slotSize)
		if len(b) < slotSize {
			r.more = false
			return
		}
		e, n, ok := cut(b)
		_, _ = r.b.Discard(n) // it was just looked at
		if ok {
			r.next, r.more = e, true
			return
		}
	}
}

// writer writes a run.
type writer struct {
	x     *files
	file  *os.File
	buf   []byte
	off   int64
	slots int64
	fence []Key
}

// newName is the file that a run is written to before it gets its name.
const newName = "new"

// newWriter begins a run under newName. Only one may be written at a time.
func (x *files) newWriter() (*writer, error) {
	if err := x.ask("create", newName); err != nil {
		return nil, err
	}
	f, err := x.dir.OpenFile(newName, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &writer{x: x, file: f}, nil
}

// add puts an entry behind the others. They have to come sorted by key, each key once.
func (w *writer) add(e *Entry) error {
	before := len(w.buf)
	w.buf = e.append(w.buf)
	for at := before; at < len(w.buf); at += slotSize {
		if w.slots%fenceStep == 0 {
			w.fence = append(w.fence, e.Key)
		}
		w.slots++
	}
	if len(w.buf) < 256<<10 {
		return nil
	}
	return w.flush()
}

// flush writes what is buffered. After an error the run is given up.
func (w *writer) flush() error {
	if err := w.x.ask("write", newName); err != nil {
		return err
	}
	n, err := w.file.WriteAt(w.buf, w.off)
	w.off += int64(n)
	w.buf = w.buf[:0]
	return err
}

// finish writes the end, and gives the run its name. One that takes the name of an older one has to
// be durable before. It is the caller's to close. An error leaves the file under newName, which the
// next writer overwrites.
func (w *writer) finish(from, to uint64, durable bool) (*run, error) {
	defer w.file.Close()
	for _, k := range w.fence {
		w.buf = binary.BigEndian.AppendUint64(w.buf, uint64(k))
	}
	var t [trailerSize]byte
	copy(t[:], magic)
	binary.BigEndian.PutUint64(t[len(magic):], uint64(w.slots))
	w.buf = append(w.buf, t[:]...)
	if err := w.flush(); err != nil {
		return nil, err
	}
	if durable {
		if err := w.file.Sync(); err != nil {
			return nil, err
		}
	}
	name := runName(from, to)
	if err := w.x.ask("rename", newName+" to "+name); err != nil {
		return nil, err
	}
	if err := w.x.dir.Rename(newName, w.x.dir, name, 0); err != nil {
		return nil, err
	}
	return openRun(w.x.dir, from, to)
}

// merge makes one run of several that follow each other, oldest first; of what several of them know
// the newest counts. keep tells which entries stay. It reads its sources once, in order, and holds
// one entry of each in memory.
func (x *files) merge(runs []*run, keep func(*Entry) (bool, error)) (*run, error) {
	w, err := x.newWriter()
	if err != nil {
		return nil, err
	}
	in := make([]*reader, len(runs))
	for i, r := range runs {
		in[i] = r.entries()
	}
	for {
		e, ok := smallest(in)
		if !ok {
			from, to := runs[0].from, runs[len(runs)-1].to
			return w.finish(from, to, from == runs[len(runs)-1].from)
		}
		wanted, err := keep(&e)
		if err == nil && wanted {
			err = w.add(&e)
		}
		if err != nil {
			w.file.Close()
			return nil, err
		}
	}
}

// smallest takes the next entry, and the older ones of the same key with it.
func smallest(in []*reader) (e Entry, ok bool) {
	for _, r := range in { // the newest comes last
		if r.more && (!ok || r.next.Key <= e.Key) {
			e, ok = r.next, true
		}
	}
	for _, r := range in {
		for ok && r.more && r.next.Key == e.Key {
			r.advance()
		}
	}
	return e, ok
}

// find looks in the runs, of which the newest counts. mu is held: buf is used for one search at a
// time.
func (s *sorted) find(k Key) (p Place, ok bool) {
	for i := len(s.runs) - 1; i >= 0 && !ok; i-- {
		p, ok = s.runs[i].find(k, s.buf)
	}
	return p, ok
}

// swap puts a run in the place of those from i to j, which it holds. Index.mu is held. The old ones
// are closed, and their files removed after the next sync.
func (s *sorted) swap(i, j int, r *run) {
	for _, old := range s.runs[i:j] {
		if name := runName(old.from, old.to); name != runName(r.from, r.to) {
			s.replace = append(s.replace, name)
		}
		old.file.Close()
	}
	s.runs = slices.Replace(s.runs, i, j, r)
}

// total counts the slots of all runs.
func (s *sorted) total() (slots int64) {
	for _, r := range s.runs {
		slots += r.slots
	}
	return slots
}
