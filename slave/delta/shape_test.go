package delta

import (
	"errors"
	"math"
	"testing"
)

func TestBlockSize(t *testing.T) {
	for _, tt := range []struct {
		size int64
		want int
	}{
		{0, 2 << 10}, {1, 2 << 10}, {2 << 20, 2 << 10}, {2<<20 + 1, 4 << 10}, {8 << 20, 4 << 10}, {16 << 20, 8 << 10},
		{1 << 30, 64 << 10}, {8 << 30, 128 << 10}, {100 << 30, 128 << 10}, {128<<30 - 1, 128 << 10},
		{128 << 30, 256 << 10}, {1<<40 - 1, 1 << 20}, {1 << 42, 8 << 20}, {1 << 50, 8 << 20}, {math.MaxInt64, 8 << 20},
	} {
		if got := BlockSize(tt.size); got != tt.want {
			t.Errorf("%d: %d, expected %d", tt.size, got, tt.want)
		}
	}
}

// TestBlockSizeRules holds, around every power of two, what the documentation says of block sizes and signatures.
func TestBlockSizeRules(t *testing.T) {
	last := 0
	for e := range 63 {
		for d := int64(-1); d <= 1; d++ {
			size := int64(1)<<e + d
			b := BlockSize(size)
			switch {
			case b < last || b&(b-1) != 0 || b < MinBlockSize || b > MaxBlockSize || b > 2048 && b%4096 != 0:
				t.Errorf("%d: block size %d after %d", size, b, last)
			case size < 128<<30 && b > usualBlockSize:
				t.Errorf("%d: block size %d", size, b)
			}
			last = b
			blocks := NewShape(size).Blocks()
			if blocks > MaxBlocks || size <= 1<<40 && blocks*int64(b) < size {
				t.Errorf("%d: %d blocks of %d", size, blocks, b)
			}
			if size <= 1<<30 && blocks*int64(Both.EncodedSize()) > 400<<10 {
				t.Errorf("%d: signature of %d bytes", size, blocks*int64(Both.EncodedSize()))
			}
		}
	}
}

func TestShape(t *testing.T) {
	for _, s := range []Shape{{-1, 2048}, {0, 0}, {10, -5}, {10, MaxBlockSize + 1}, {math.MinInt64, math.MaxInt}} {
		if err := s.Check(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%v: %v", s, err)
		}
		if _, err := NewIndex(testKey, s, 10); !errors.Is(err, ErrMalformed) {
			t.Errorf("index of %v: %v", s, err)
		}
		if err := (Signer{Shape: s}).Sign(t.Context()); !errors.Is(err, ErrMalformed) {
			t.Errorf("signature of %v: %v", s, err)
		}
	}
	for _, tt := range []struct {
		shape  Shape
		blocks int64
		tail   int
	}{
		{Shape{0, 2048}, 0, 0}, {Shape{1, 2048}, 1, 1}, {Shape{2047, 2048}, 1, 2047}, {Shape{2048, 2048}, 1, 0},
		{Shape{2049, 2048}, 2, 1}, {Shape{math.MaxInt64, MaxBlockSize}, MaxBlocks, 0},
		{Shape{math.MaxInt64, 1}, MaxBlocks, 0}, {Shape{MaxBlocks*2 + 1, 2}, MaxBlocks, 0},
		{Shape{MaxBlocks*2 - 1, 2}, MaxBlocks, 1},
	} {
		if err := tt.shape.Check(); err != nil {
			t.Error(err)
		}
		if b, l := tt.shape.Blocks(), tt.shape.tail(); b != tt.blocks || l != tt.tail {
			t.Errorf("%v: %d blocks, the last of %d", tt.shape, b, l)
		}
	}
}
