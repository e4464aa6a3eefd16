package delta

import (
	"context"
	"fmt"
	"sync"
)

// Growing is a signature on its way: an Index that one goroutine fills while another already compares the new content
// with what has come, block by block, in place. What is not found so is for an Encoder, once the signature is complete.
type Growing struct {
	sums *sums

	mu    sync.Mutex
	index *Index
	ended bool
	err   error
	news  chan struct{} // closed, and replaced, whenever there is more
}

// NewGrowing is an empty signature of a basis of that shape under that key.
func NewGrowing(key Key, shape Shape) (*Growing, error) {
	x, err := NewIndex(key, shape, MaxBlocks)
	if err != nil {
		return nil, err
	}
	s, err := newSums(key)
	if err != nil {
		return nil, err
	}
	return &Growing{sums: s, index: x, news: make(chan struct{})}, nil
}

// Add adds blocks as Index.Add does.
func (g *Growing) Add(first int64, blocks []Block) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.index.Add(first, blocks)
	g.tell()
	return err
}

// End says that no more comes, because of err or, where that is nil, because the signature is complete.
func (g *Growing) End(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended, g.err = true, err
	g.tell()
}

func (g *Growing) tell() {
	close(g.news)
	g.news = make(chan struct{})
}

// Index waits for the end and returns what has come; it is the caller's.
func (g *Growing) Index(ctx context.Context) (*Index, error) {
	for {
		g.mu.Lock()
		ended, err, news := g.ended, g.err, g.news
		g.mu.Unlock()
		if ended {
			return g.index, err
		}
		if err := wait(ctx, news); err != nil {
			return nil, err
		}
	}
}

// Same tells whether block n of the basis is content. It waits until the signature has come as far; where it ends
// before, or has left the block out, the answer is no. It has one user at a time, beside the one who adds.
func (g *Growing) Same(ctx context.Context, n int64, content []byte) (bool, error) {
	if n < 0 || n >= g.index.shape.Blocks() || len(content) != g.index.shape.length(n) {
		return false, nil
	}
	for {
		strong, known, news := g.look(n)
		if known {
			return strong != nil && *strong == g.sums.strong(content), nil
		}
		if err := wait(ctx, news); err != nil {
			return false, err
		}
	}
}

// look is the strong sum of block n, nil if there is none. known tells that this will not change.
func (g *Growing) look(n int64) (strong *[StrongSize]byte, known bool, news <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if b := g.index.block(n); b != nil {
		s := b.Strong
		strong = &s
	}
	return strong, g.ended || n < g.index.next(), g.news
}

func wait(ctx context.Context, news <-chan struct{}) error {
	select {
	case <-news:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for a signature: %w", ctx.Err())
	}
}
