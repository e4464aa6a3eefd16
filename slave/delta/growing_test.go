package delta

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
)

// TestGrowing: each block is compared as soon as its sum has come, and not before; what never comes is not the same.
func TestGrowing(t *testing.T) {
	const block = 2048
	basis := random(10*block+100, 1)
	changed := bytes.Clone(basis)
	changed[3*block+5] ^= 1
	shape := Shape{Size: int64(len(basis)), Block: block}
	g, err := NewGrowing(testKey, shape)
	if err != nil {
		t.Fatal(err)
	}
	signed := make(chan struct{})
	emitted := make(chan int64)
	go func() {
		defer close(signed)
		extents := func(off int64) (int64, int64, error) { // block 6 is a hole
			switch {
			case off < 6*block:
				return off, 6 * block, nil
			case off < shape.Size:
				return max(off, 7*block), shape.Size, nil
			}
			return 0, 0, io.EOF
		}
		g.End(Signer{Key: testKey, Shape: shape, Basis: bytes.NewReader(basis), Every: 1, Extent: extents,
			Emit: func(first int64, blocks []Block) error {
				emitted <- first
				return g.Add(first, blocks)
			}}.Sign(t.Context()))
	}()
	early, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Same(early, 0, basis[:block]); !errors.Is(err, context.Canceled) {
		t.Errorf("before the first block has come: %v", err)
	}
	go func() {
		for range emitted {
		}
	}()
	for n := range shape.Blocks() {
		content := changed[n*block:][:shape.length(n)]
		same, err := g.Same(t.Context(), n, content)
		if err != nil || same != (n != 3 && n != 6) {
			t.Errorf("block %d: %v, %v", n, same, err)
		}
		if same, err := g.Same(t.Context(), n, content[1:]); err != nil || same {
			t.Errorf("block %d without its first byte: %v, %v", n, same, err)
		}
	}
	for _, n := range []int64{-1, shape.Blocks(), 1 << 40} {
		if same, err := g.Same(t.Context(), n, basis[:block]); err != nil || same {
			t.Errorf("block %d: %v, %v", n, same, err)
		}
	}
	<-signed
	close(emitted)
	x, err := g.Index(t.Context())
	if err != nil || x.Len() != 10 {
		t.Errorf("%d blocks, %v", x.Len(), err)
	}
}

// TestGrowingFails: whoever waits for a signature that ends in failure is told, and finds nothing the same.
func TestGrowingFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := NewGrowing(testKey, Shape{Size: 1 << 20, Block: 2048})
		if err != nil {
			t.Fatal(err)
		}
		failure := errors.New("cut")
		go func() {
			synctest.Wait()
			g.End(failure)
		}()
		if same, err := g.Same(t.Context(), 5, make([]byte, 2048)); same || err != nil {
			t.Errorf("the same %v, %v", same, err)
		}
		if _, err := g.Index(t.Context()); !errors.Is(err, failure) {
			t.Errorf("%v", err)
		}
	})
	if _, err := NewGrowing(testKey, Shape{Size: -1, Block: 1}); !errors.Is(err, ErrMalformed) {
		t.Errorf("an impossible shape: %v", err)
	}
}
