package delta

import (
	"bytes"
	"context"
	"crypto/cipher"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

var testKey = Key{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// random is n bytes that depend on the seed alone.
func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	r.Read(b)
	return b
}

// signed is the index of a basis, made by way of the wire form.
func signed(t testing.TB, basis []byte, block int) *Index {
	t.Helper()
	shape := Shape{Size: int64(len(basis)), Block: block}
	x, err := NewIndex(testKey, shape, MaxBlocks)
	if err != nil {
		t.Fatal(err)
	}
	s := Signer{Key: testKey, Shape: shape, Basis: bytes.NewReader(basis), Every: 100}
	s.Emit = func(first int64, blocks []Block) error {
		parsed, err := Both.ParseBlocks(nil, Both.AppendBlocks(nil, blocks))
		return errors.Join(err, x.Add(first, parsed))
	}
	if err := s.Sign(context.Background()); err != nil {
		t.Fatal(err)
	}
	return x
}

// piece is one of a new file.
type piece struct {
	off  int64
	data []byte
}

// pieces cuts content into pieces of n bytes, without holes.
func pieces(content []byte, n int) (all []piece) {
	for off := 0; off < len(content); off += n {
		all = append(all, piece{int64(off), content[off:min(off+n, len(content))]})
	}
	return all
}

// source gives pieces, and spoils each as soon as it may.
func source(all []piece) Source {
	var last []byte
	return func() (int64, []byte, error) {
		for i := range last {
			last[i] ^= 0x55
		}
		if len(all) == 0 {
			return 0, nil, io.EOF
		}
		p := all[0]
		all = all[1:]
		last = bytes.Clone(p.data)
		return p.off, last, nil
	}
}

// result is what an encoding gave.
type result struct {
	data, copied int64 // bytes
	list         []Instruction
	hashed       int64 // bytes given to the strong hash
}

// meter counts the bytes given to a strong hash.
type meter struct {
	cipher.AEAD
	bytes int64
}

func (m *meter) Seal(dst, nonce, plain, additional []byte) []byte {
	m.bytes += int64(len(additional))
	return m.AEAD.Seal(dst, nonce, plain, additional)
}

// encode checks that the instructions for the pieces are in order, leave out exactly the holes, and make the pieces out
// of the basis.
func encode(t testing.TB, x *Index, basis []byte, all []piece) result {
	t.Helper()
	e, err := NewEncoder(x, source(all))
	if err != nil {
		t.Fatal(err)
	}
	return drain(t, e, basis, all)
}

func drain(t testing.TB, e *Encoder, basis []byte, all []piece) (r result) {
	t.Helper()
	m := &meter{AEAD: e.sums.gmac}
	e.sums.gmac = m
	want := newCursor(all)
	for {
		i, err := e.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := i.Check(int64(len(basis))); err != nil {
			t.Fatal(err)
		}
		got := i.Data
		if got == nil {
			got = basis[i.From : i.From+i.Len]
			r.copied += i.Len
		} else {
			r.data += i.Len
		}
		want.take(t, i.Off, got)
		i.Data = bytes.Clone(i.Data)
		r.list = append(r.list, i)
	}
	want.finish(t)
	if _, err := e.Next(); err != io.EOF {
		t.Fatalf("after the end: %v", err)
	}
	e.sums.gmac = m.AEAD
	r.hashed = m.bytes
	return r
}

// cursor goes along the data of pieces.
type cursor struct {
	all []piece
	at  int // in all[0]
}

func newCursor(all []piece) *cursor { return &cursor{all: all} }

func (c *cursor) skip() {
	for len(c.all) > 0 && c.at == len(c.all[0].data) {
		c.all, c.at = c.all[1:], 0
	}
}

// take says that b at off was produced.
func (c *cursor) take(t testing.TB, off int64, b []byte) {
	t.Helper()
	for len(b) > 0 {
		c.skip()
		if len(c.all) == 0 {
			t.Fatalf("%d bytes at %d beyond the end", len(b), off)
		}
		p := c.all[0]
		if p.off+int64(c.at) != off {
			t.Fatalf("produced offset %d, expected %d", off, p.off+int64(c.at))
		}
		n := min(len(b), len(p.data)-c.at)
		if !bytes.Equal(b[:n], p.data[c.at:c.at+n]) {
			t.Fatalf("wrong content in %d bytes at %d", n, off)
		}
		b, off = b[n:], off+int64(n)
		c.at += n
	}
}

func (c *cursor) finish(t testing.TB) {
	t.Helper()
	if c.skip(); len(c.all) > 0 {
		t.Fatalf("nothing produced from %d on", c.all[0].off+int64(c.at))
	}
}

// concat joins byte slices into a new one.
func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
