package delta

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// TestSign expects each block once, in order, in batches of the length asked for, with the sums of its content.
func TestSign(t *testing.T) {
	for _, size := range []int{0, 1, 2047, 2048, 2049, 300_000, 1 << 20} {
		for _, every := range []int{0, 1, 7, 1 << 20} {
			basis := random(size, 1)
			shape := Shape{Size: int64(size), Block: 2048}
			s := testSums(t, testKey)
			next := int64(0)
			err := Signer{Key: testKey, Shape: shape, Basis: bytes.NewReader(basis), Every: every,
				Emit: func(first int64, blocks []Block) error {
					last := first+int64(len(blocks)) == shape.Blocks()
					if first != next || every > 0 && (len(blocks) > every || len(blocks) < every && !last) {
						t.Errorf("%d blocks from %d, expected from %d", len(blocks), first, next)
					}
					for _, b := range blocks {
						content := basis[next*2048 : next*2048+int64(shape.length(next))]
						if b.Weak != s.weak(content) || b.Strong != s.strong(content) {
							t.Fatalf("size %d: wrong sums of block %d", size, next)
						}
						next++
					}
					return nil
				}}.Sign(t.Context())
			if err != nil || next != shape.Blocks() {
				t.Errorf("size %d: %d blocks, %v", size, next, err)
			}
		}
	}
}

// faultyReader fails from the nth read on.
type faultyReader struct {
	io.ReaderAt
	left int
	err  error
}

func (r *faultyReader) ReadAt(b []byte, off int64) (int, error) {
	if r.left--; r.left < 0 {
		return 0, r.err
	}
	return r.ReaderAt.ReadAt(b, off)
}

// TestSignErrors fails the first, second, third ... read, emission and extent until all succeed.
func TestSignErrors(t *testing.T) {
	basis := random(5*readSize+1000, 2)
	boom := errors.New("boom")
	for what, failing := range map[string]func(s *Signer, n int){
		"read": func(s *Signer, n int) { s.Basis = &faultyReader{s.Basis, n, boom} },
		"emit": func(s *Signer, n int) {
			s.Emit = func(int64, []Block) error {
				if n--; n < 0 {
					return boom
				}
				return nil
			}
		},
		"extent": func(s *Signer, n int) {
			inner := s.Extent
			s.Extent = func(off int64) (int64, int64, error) {
				if n--; n < 0 {
					return 0, 0, fmt.Errorf("extent: %w, not %w", boom, io.EOF)
				}
				return inner(off)
			}
		},
	} {
		failures := 0
		for n := 0; ; n++ {
			s := Signer{Shape: Shape{Size: int64(len(basis)), Block: 2048}, Basis: bytes.NewReader(basis), Every: 50}
			s.Emit = func(int64, []Block) error { return nil }
			s.Extent = func(off int64) (int64, int64, error) {
				if off >= int64(len(basis)) {
					return 0, 0, io.EOF
				}
				return off, min(off+100_000, int64(len(basis))), nil
			}
			failing(&s, n)
			err := s.Sign(t.Context())
			if err == nil {
				break
			}
			if failures++; !errors.Is(err, boom) {
				t.Fatalf("%s %d: %v", what, n, err)
			}
		}
		if failures < 6 {
			t.Errorf("%s: only %d failures", what, failures)
		}
	}
}

func TestSignTruncated(t *testing.T) {
	for _, size := range []int{0, 1, 2048, 5000, 9999} {
		s := Signer{Shape: Shape{Size: 10_000, Block: 2048}, Basis: bytes.NewReader(make([]byte, size))}
		s.Emit = func(int64, []Block) error { return nil }
		if err := s.Sign(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes of 10000: %v", size, err)
		}
	}
}

func TestSignCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := Signer{Shape: Shape{Size: 1 << 30, Block: 2048}, Basis: zeros{}, Every: 10}
	s.Emit = func(first int64, _ []Block) error {
		if first > readSize/2048+10 {
			t.Fatal("goes on")
		}
		cancel()
		return nil
	}
	if err := s.Sign(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// zeros is as long as one likes.
type zeros struct{}

func (zeros) ReadAt(b []byte, _ int64) (int, error) {
	clear(b)
	return len(b), nil
}

// TestSignExtents leaves out the blocks without data, of a basis that has far more blocks than could be read.
func TestSignExtents(t *testing.T) {
	const b = 4096
	extents := [][2]int64{{0, 1}, {3*b - 1, 3*b + 1}, {3*b + 10, 3*b + 20}, {10 * b, 12 * b}, {MaxBlocks*b - 5, 1 << 60}}
	want := []int64{0, 2, 3, 10, 11, MaxBlocks - 1}
	var got []int64
	s := Signer{Shape: Shape{Size: 1 << 60, Block: b}, Basis: zeros{}}
	s.Emit = func(first int64, blocks []Block) error {
		for i := range blocks {
			got = append(got, first+int64(i))
		}
		return nil
	}
	s.Extent = func(off int64) (int64, int64, error) {
		for _, x := range extents {
			if x[1] > off {
				return max(x[0], off), x[1], nil
			}
		}
		return 0, 0, io.EOF
	}
	if err := s.Sign(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, expected %v, %v", got, want, err)
	}
	for _, bad := range [][2]int64{{-1, 5}, {0, 0}, {10, 9}} {
		s.Extent = func(int64) (int64, int64, error) { return bad[0], bad[1], nil }
		if err := s.Sign(t.Context()); err == nil {
			t.Errorf("extent %v was taken", bad)
		}
	}
	// Data only beyond the last block that is signed.
	got = nil
	s.Extent = func(int64) (int64, int64, error) { return 1 << 59, 1 << 60, nil }
	if err := s.Sign(t.Context()); err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
}

func TestParseBlocks(t *testing.T) {
	blocks := []Block{{0, [StrongSize]byte{1}}, {weakMask, [StrongSize]byte{2}}, {12345, [StrongSize]byte{StrongSize - 1: 3}}}
	for which, size := range map[Which]int{Both: 17, OnlyStrong: 12, OnlyWeak: 5} {
		want := slices.Clone(blocks)
		for i := range want {
			switch which {
			case OnlyStrong:
				want[i].Weak = 0
			case OnlyWeak:
				want[i].Strong = [StrongSize]byte{}
			}
		}
		b := which.AppendBlocks([]byte("x"), blocks)[1:]
		for n := range len(b) + 1 {
			got, err := which.ParseBlocks(nil, b[:n])
			if n%size != 0 {
				if !errors.Is(err, ErrMalformed) {
					t.Errorf("%d: %d bytes: %v", which, n, err)
				}
			} else if err != nil || !slices.Equal(got, want[:n/size]) {
				t.Errorf("%d: %d bytes: %v, %v", which, n, got, err)
			}
		}
	}
	if err := (OnlyWeak + 1).Check(); !errors.Is(err, ErrMalformed) {
		t.Errorf("a signature of no known kind: %v", err)
	}
}

// FuzzSignature takes any bytes as a signature: what is taken has the same wire form, and an encoder that uses it does
// nothing but copy from within the basis, or send data, to the new file's end.
func FuzzSignature(f *testing.F) {
	f.Add([]byte{}, int64(0), int64(0), uint8(0))
	f.Add(Both.AppendBlocks(nil, make([]Block, 5)), int64(5*16), int64(0), uint8(15))
	f.Add(Both.AppendBlocks(nil, make([]Block, 5)), int64(1<<62), int64(3), uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, size, first int64, block uint8) {
		blocks, err := Both.ParseBlocks(nil, b)
		if err != nil {
			return
		}
		if !bytes.Equal(Both.AppendBlocks(nil, blocks), b) {
			t.Fatal("another wire form")
		}
		x, err := NewIndex(testKey, Shape{Size: size, Block: int(block) + 1}, 1000)
		if err != nil {
			return
		}
		half := len(blocks) / 2
		if x.Add(first, blocks[:half]) == nil {
			_ = x.Add(first+int64(half)+1, blocks[half:])
		}
		// Nothing proves that the basis has what is claimed, so only ranges and lengths are looked at.
		content := make([]byte, 3000)
		e, err := NewEncoder(x, source(pieces(content, 500)))
		if err != nil {
			t.Fatal(err)
		}
		at := int64(0)
		for {
			i, err := e.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := i.Check(size); err != nil {
				t.Fatal(err)
			}
			if i.Off != at {
				t.Fatalf("at %d after %d", i.Off, at)
			}
			at += i.Len
		}
		if at != int64(len(content)) {
			t.Fatalf("ended at %d", at)
		}
	})
}
