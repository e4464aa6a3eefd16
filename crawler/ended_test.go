package crawler_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"georep/slave"
)

// underWay is a slave far away: a call that is given up returns at once, and what it sent is applied all the same. The
// batch with the file "keep/slow" arrives once the crawl has failed over a removal and has stopped giving content.
type underWay struct {
	slave.Tree
	begun   chan struct{} // closed when that batch was sent
	applied atomic.Bool   // it was applied
}

var errCount = errors.New("not counted")

func (u *underWay) Count(context.Context, []string, int64) ([]int64, error) {
	<-u.begun
	return nil, errCount
}

func (u *underWay) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	if !touches(b, "keep/slow") {
		return u.Tree.Apply(ctx, b)
	}
	close(u.begun)
	for givesContent(b) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	results, err := u.Tree.Apply(ctx, b)
	u.applied.Store(true)
	return results, err
}

func touches(b *slave.Batch, path string) bool {
	for i := range b.Ops {
		if b.Ops[i].Path == path {
			return true
		}
	}
	return false
}

// givesContent tells whether the contents of the batch can still be had.
func givesContent(b *slave.Batch) bool {
	for i := range b.Ops {
		if b.Ops[i].Open == nil {
			continue
		}
		c, err := b.Ops[i].Open()
		if err != nil {
			return false
		}
		_, err = c.Next()
		c.Close()
		if err != nil {
			return false
		}
	}
	return true
}

// What a crawl has sent must have been applied, or dropped, when the crawl is over: the next one reads the slave, and
// over several streams its batches may overtake those of this one. An older state of a file would be put over a newer
// one, below a directory that is then stamped.
func TestCrawlEndsAfterItsBatches(t *testing.T) {
	w := newWorld(t)
	for i := range 1500 {
		w.write(fmt.Sprintf("shrinks/many/f%d", i), "x")
	}
	w.write("keep/slow", "x")
	w.mark("")
	w.inStep()
	u := &underWay{begun: make(chan struct{})}
	w.wrap = func(t slave.Tree) slave.Tree { u.Tree = t; return u }
	w.connect()
	w.ok(os.RemoveAll(w.at("shrinks/many")))
	w.write("keep/slow", "changed")
	w.mark("keep/slow", "shrinks")
	if _, err := w.crawler.Pass(t.Context()); !errors.Is(err, errCount) {
		t.Fatalf("the crawl ended with %v", err)
	}
	if !u.applied.Load() {
		t.Error("the crawl was over before what it had sent was applied")
	}
	if list, n := w.crawler.Failures(1); n != 0 {
		t.Errorf("a content that was not wanted any more is a failure: %v", list)
	}
	w.maxDelete, w.wrap = 100, nil
	w.connect()
	w.mark("shrinks")
	w.inStep()
}
