package beneath

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"sync"

	"golang.org/x/sys/unix"
)

// digestBlock is the unit in which a digest leaves zeros out. It is part of the meaning of a digest.
const digestBlock = 4096

// Digest is what a content is compared by: its size, and the SHA-256 of three things: the SHA-256 of all blocks of 4,096 bytes,
// the last one may be shorter, that are not zero; the SHA-256 of where these lie, as a list of runs (from, to); and the size.
// Numbers have 8 bytes, big-endian. So a hole and zeros that are stored are the same, and holes need not be read.
type Digest struct {
	data, runs hash.Hash
	off        int64 // of what comes next, partial included
	run        int64 // where the run of blocks that are not zero begins; -1: there is none
	partial    []byte
}

// NewDigest begins a digest. A prefix stands before the blocks.
func NewDigest(prefix []byte) *Digest {
	d := &Digest{data: sha256.New(), runs: sha256.New(), run: -1}
	_, _ = d.data.Write(prefix) // never fails
	return d
}

// Write takes the next bytes of the content. It never fails.
func (d *Digest) Write(b []byte) (int, error) {
	n := len(b)
	if len(d.partial) > 0 {
		k := min(digestBlock-len(d.partial), len(b))
		d.partial, b = append(d.partial, b[:k]...), b[k:]
		d.off += int64(k)
		if len(d.partial) < digestBlock {
			return n, nil
		}
		d.blocks(d.partial, d.off-digestBlock)
		d.partial = d.partial[:0]
	}
	whole := len(b) / digestBlock * digestBlock
	d.blocks(b[:whole], d.off)
	d.partial = append(d.partial, b[whole:]...)
	d.off += int64(len(b))
	return n, nil
}

// Skip takes n zeros as the next bytes of the content.
func (d *Digest) Skip(n int64) {
	if k := int64(len(d.partial)); k > 0 {
		fill := min(digestBlock-k, n)
		_, _ = d.Write(zeros[:fill])
		n -= fill
	}
	if whole := n / digestBlock * digestBlock; whole > 0 {
		d.endRun(d.off)
		d.off, n = d.off+whole, n-whole
	}
	_, _ = d.Write(zeros[:n])
}

// blocks takes whole blocks, of which the first lies at off; the last of the content may be shorter.
func (d *Digest) blocks(b []byte, off int64) {
	from := 0 // of those that are not hashed yet
	for at := 0; at < len(b); at += digestBlock {
		block := b[at:min(at+digestBlock, len(b))]
		if block[0] != 0 || !bytes.Equal(block, zeros[:len(block)]) {
			if d.run < 0 {
				d.run, from = off+int64(at), at
			}
			continue
		}
		if d.run >= 0 {
			_, _ = d.data.Write(b[from:at])
			d.endRun(off + int64(at))
		}
	}
	if d.run >= 0 {
		_, _ = d.data.Write(b[from:])
	}
}

// endRun ends the run of blocks that are not zero, if there is one.
func (d *Digest) endRun(at int64) {
	if d.run < 0 {
		return
	}
	_, _ = d.runs.Write(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(d.run)), uint64(at)))
	d.run = -1
}

// Sum ends the content. The digest is of no use any more.
func (d *Digest) Sum() (size int64, sum [sha256.Size]byte) {
	if k := len(d.partial); k > 0 {
		d.blocks(d.partial, d.off-int64(k))
	}
	d.endRun(d.off)
	return d.off, sha256.Sum256(binary.BigEndian.AppendUint64(d.runs.Sum(d.data.Sum(nil)), uint64(d.off)))
}

var zeros = make([]byte, digestBlock)

// sparseLeast is the size from which on it is worth asking where the data are. One that was written just now may look sparse.
const sparseLeast = 1 << 20

// digestBuffers are what Digest reads into: little more than what stays in the processor's caches.
var digestBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// Digest reads an open regular file to its end, and gives how much that was and its Digest. st is of the file: of a sparse one
// only the data are read, and of one that has grown since no more than tells so, since nothing bounds what may be added. live
// is called after each piece; its error ends it.
func (i *Inode) Digest(st *Stat, live func() error) (size int64, sum [sha256.Size]byte, err error) {
	return i.DigestAfter(nil, st, live)
}

// DigestAfter is Digest of the content with a prefix before it. The size is that of the content.
func (i *Inode) DigestAfter(prefix []byte, st *Stat, live func() error) (size int64, sum [sha256.Size]byte, err error) {
	d := NewDigest(prefix)
	buf := digestBuffers.Get().(*[]byte)
	defer digestBuffers.Put(buf)
	if st.Sparse() {
		err = i.digestData(d, *buf, st.Size, live)
	} else {
		err = i.digestAll(d, *buf, st.Size, live)
	}
	size, sum = d.Sum()
	return size, sum, err
}

// Sparse tells whether a file takes less room than its size, and is large enough to be asked where its data are.
func (st *Stat) Sparse() bool { return st.Size >= sparseLeast && int64(st.Blocks)*512 < st.Size }

// digestAll reads everything, a file that is smaller than buf in one call. A read that gives less than it may, and ends where
// the size says, has met the end. Anywhere else another read has to tell: some network file systems give less than is there.
func (i *Inode) digestAll(d *Digest, buf []byte, size int64, live func() error) error {
	for d.off <= size {
		n, err := i.ReadUpTo(buf, d.off)
		if err != nil || n == 0 {
			return err
		}
		_, _ = d.Write(buf[:n])
		if err := live(); err != nil {
			return err
		}
		if n < len(buf) && d.off == size {
			break
		}
	}
	return nil
}

// digestData reads the data of a sparse file, run by run. What is cut off meanwhile ends it; the size tells.
func (i *Inode) digestData(d *Digest, buf []byte, size int64, live func() error) error {
	for d.off <= size {
		start, end, err := i.Extent(d.off)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		d.Skip(start - d.off)
		for d.off < end {
			n, err := i.ReadAt(buf[:min(int64(len(buf)), end-d.off)], d.off)
			if err != nil {
				return err
			}
			if n == 0 {
				return live()
			}
			_, _ = d.Write(buf[:n])
			if err := live(); err != nil {
				return err
			}
		}
	}
	now, err := i.Stat()
	if err == nil && now.Size > d.off {
		d.Skip(now.Size - d.off)
	}
	return err
}
