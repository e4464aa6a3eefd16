package delta

import (
	"bytes"
	"crypto/sha256"
	"io"
	"testing"
)

// benchSize is the length of the files in benchmarks; benchBlock the block length of a file of 1 GiB.
const (
	benchSize  = 64 << 20
	benchBlock = 64 << 10
)

// BenchmarkSHA256 is the strong hash that everyone knows, for comparison.
func BenchmarkSHA256(b *testing.B) {
	basis := random(benchSize, 1)
	b.SetBytes(benchSize)
	for b.Loop() {
		for n := 0; n < len(basis); n += benchBlock {
			sha256.Sum256(basis[n : n+benchBlock])
		}
	}
}

func BenchmarkStrong(b *testing.B) {
	basis := random(benchSize, 1)
	s := testSums(b, testKey)
	b.SetBytes(benchSize)
	for b.Loop() {
		for n := 0; n < len(basis); n += benchBlock {
			s.strong(basis[n : n+benchBlock])
		}
	}
}

func BenchmarkSign(b *testing.B) {
	basis := random(benchSize, 1)
	s := Signer{Key: testKey, Shape: Shape{Size: benchSize, Block: benchBlock}, Basis: bytes.NewReader(basis)}
	s.Emit = func(int64, []Block) error { return nil }
	b.SetBytes(benchSize)
	for b.Loop() {
		if err := s.Sign(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	basis := random(benchSize, 1)
	changed := bytes.Clone(basis)
	for n := 50 * benchBlock; n < benchSize; n += 100 * benchBlock {
		changed[n+5]++ // one block in a hundred
	}
	sparse := bytes.Clone(basis)
	for n := 0; n < benchSize; n += benchBlock {
		sparse[n+5]++
	}
	for _, bb := range []struct {
		name string
		new  []byte
	}{
		{"same", basis},
		{"different", random(benchSize, 2)},
		{"changed1%", changed},
		{"changed100%", sparse},
		{"shifted", basis[1:]},
	} {
		b.Run(bb.name, func(b *testing.B) { benchEncode(b, signed(b, basis, benchBlock), bb.new) })
	}
	// As many blocks as there may be.
	b.Run("different/1Mblocks", func(b *testing.B) {
		small := random(64*MaxBlocks, 3)
		benchEncode(b, signed(b, small, 64), random(benchSize, 2))
	})
}

func benchEncode(b *testing.B, x *Index, new []byte) {
	var e Encoder
	b.SetBytes(int64(len(new)))
	for b.Loop() {
		off := 0
		err := e.Reset(x, func() (int64, []byte, error) {
			if off == len(new) {
				return 0, nil, io.EOF
			}
			at := off
			off = min(off+256<<10, len(new))
			return int64(at), new[at:off], nil
		})
		for err == nil {
			_, err = e.Next()
		}
		if err != io.EOF {
			b.Fatal(err)
		}
	}
}

// BenchmarkSeal builds the largest index.
func BenchmarkSeal(b *testing.B) {
	blocks := testBlocks(MaxBlocks, 1, 1<<30)
	for b.Loop() {
		x, err := NewIndex(testKey, Shape{Size: MaxBlocks * 16, Block: 16}, MaxBlocks)
		if err != nil {
			b.Fatal(err)
		}
		if err := x.Add(0, blocks); err != nil {
			b.Fatal(err)
		}
		x.Seal()
	}
}
