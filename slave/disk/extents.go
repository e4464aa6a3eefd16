package disk

import (
	"errors"
	"io"
	"sort"
	"sync"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

// extents are the runs of data of a sparse file, as they were when they were asked for first. A signature that comes in two
// parts has the same blocks in both, so they are not asked for again. The zero value is ready.
type extents struct {
	once sync.Once
	runs []slave.Range
	// many is set beyond maxExtents: asking the kernel for each run is then cheaper than keeping
	// them.
	many bool // not worth it
	err  error
}

const maxExtents = 1 << 16

// of is what delta.Signer wants to know of a file with the attributes st; nil means that all of it
// is data. The answer may be used until the file is closed, from any goroutine.
func (x *extents) of(f *beneath.Inode, st *beneath.Stat) (find func(off int64) (start, end int64, err error), err error) {
	if !st.Sparse() {
		return nil, nil
	}
	x.once.Do(func() { x.read(f, st.Size) })
	if x.many || x.err != nil {
		return nil, x.err
	}
	return x.find, nil
}

// read asks the file system for all runs, once. What is written to the file meanwhile does not
// matter: the file is the basis of an upload, and nobody's to change.
func (x *extents) read(f *beneath.Inode, size int64) {
	for at := int64(0); at < size; {
		start, end, err := f.Extent(at)
		switch {
		case errors.Is(err, unix.ENXIO) || err == nil && start >= size:
			return
		case err != nil:
			x.err = err
			return
		}
		x.runs, at = append(x.runs, slave.Range{Off: start, End: min(end, size)}), end
		if len(x.runs) > maxExtents {
			x.runs, x.many = nil, true
			return
		}
	}
}

// find gives the next run of data at or behind off.
func (x *extents) find(off int64) (start, end int64, err error) {
	i := sort.Search(len(x.runs), func(i int) bool { return x.runs[i].End > off })
	if i == len(x.runs) {
		return 0, 0, io.EOF
	}
	return max(off, x.runs[i].Off), x.runs[i].End, nil
}
