package crawler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/sftp"
)

// cost counts what is asked of a slave.
type cost struct {
	slave.Tree
	ops, found, hashed, bytes atomic.Int64

	links  atomic.Int64
	enough chan struct{} // closed when linksAtOnce are there
	once   sync.Once
}

func (c *cost) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	c.ops.Add(int64(len(b.Ops)))
	if err := c.together(b); err != nil {
		return nil, err
	}
	return c.Tree.Apply(ctx, b)
}

// linksAtOnce is fewer than the batches that are sent before an answer.
const linksAtOnce = 6

// together answers no link before there are several.
func (c *cost) together(b *slave.Batch) error {
	for i := range b.Ops {
		if b.Ops[i].Kind == slave.OpLink && c.links.Add(1) == linksAtOnce {
			c.once.Do(func() { close(c.enough) })
		}
	}
	if c.links.Load() == 0 {
		return nil
	}
	select {
	case <-c.enough:
		return nil
	case <-time.After(2 * time.Minute):
		return errors.New("a link waits for another")
	}
}

func (c *cost) Find(ctx context.Context, g []xtime.GFID) ([]slave.Found, error) {
	c.found.Add(int64(len(g)))
	return c.Tree.Find(ctx, g)
}

func (c *cost) Hash(ctx context.Context, p []string) ([]slave.HashResult, error) {
	c.hashed.Add(int64(len(p)))
	return c.Tree.Hash(ctx, p)
}

// tapped is a stream of which the bytes are counted, in both directions.
type tapped struct {
	io.ReadWriteCloser
	bytes *atomic.Int64
}

func (c tapped) Read(b []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(b)
	c.bytes.Add(int64(n))
	return n, err
}

func (c tapped) Write(b []byte) (int, error) {
	c.bytes.Add(int64(len(b)))
	return c.ReadWriteCloser.Write(b)
}

// perName bounds the bytes on an SFTP session for one name of an inode that has many.
const perName = 4000

// TestManyNamesOfOneInode: what an inode with many names costs is linear in their number, and little a name: operations do not
// wait for each other, each directory's names are hashed and looked for once, and of a change by hints there is one operation.
func TestManyNamesOfOneInode(t *testing.T) {
	for kind, overSFTP := range map[string]bool{"disk": false, "sftp": true} {
		t.Run(kind, func(t *testing.T) {
			const names = 160
			large := manyNames(t, names, overSFTP)
			for what, b := range large {
				if b.ops > names+16 || b.found > 4 || b.hashed > 2 || b.bytes > names*perName {
					t.Errorf("%s: %d names cost %+v", what, names, b)
				}
			}
			for _, what := range []string{"content, by hints", "mode, by hints"} {
				if n := large[what].ops; n > 8 {
					t.Errorf("%s: %d operations", what, n)
				}
			}
		})
	}
}

type spent struct{ ops, found, hashed, bytes int64 }

// manyNames tells what each of some changes of an inode with n names in two directories costs.
func manyNames(t *testing.T, n int, overSFTP bool) map[string]spent {
	w := inMemory(t, true)
	c := &cost{enough: make(chan struct{})}
	w.wrap = func(inner slave.Tree) slave.Tree { c.Tree = inner; return c }
	if overSFTP {
		w.countSFTP(&c.bytes)
	} else {
		w.connect()
	}
	all := map[string]spent{}
	step := func(what string, change func()) {
		change()
		before := c.spent()
		if out := w.pass(); out.Stime == 0 {
			t.Fatalf("%s: not stamped", what)
		}
		now := c.spent()
		all[what] = spent{now.ops - before.ops, now.found - before.found, now.hashed - before.hashed, now.bytes - before.bytes}
	}
	step("first sync", func() {
		w.write("a/0", "content")
		w.ok(os.Mkdir(w.at("b"), 0o755))
		for i := 1; i < n; i++ {
			w.ok(os.Link(w.at("a/0"), w.at("ab"[i&1:i&1+1], fmt.Sprint(i))))
		}
		w.mark("")
	})
	step("content, by hints", func() { w.write("b/1", "changed"); w.tell("b/1") })
	step("mode, by hints", func() { w.ok(os.Chmod(w.at("b/1"), 0o600)); w.tell("b/1") })
	step("content, by a crawl", func() { w.write("b/1", "changed again"); w.mark("b/1", "a") })
	step("mode, by a crawl", func() { w.ok(os.Chmod(w.at("b/1"), 0o640)); w.mark("b/1", "a") })
	step("half of them removed, by hints", func() {
		var gone []string
		for i := 1; i < n; i += 2 {
			gone = append(gone, fmt.Sprint("b/", i))
			w.ok(os.Remove(w.at(gone[len(gone)-1])))
		}
		w.tell(gone...)
	})
	if !overSFTP {
		w.mark("")
		w.inStep()
	}
	return all
}

func (c *cost) spent() spent {
	return spent{c.ops.Load(), c.found.Load(), c.hashed.Load(), c.bytes.Load()}
}

// countSFTP is connectSFTP, with the bytes of the sessions counted.
func (w *world) countSFTP(bytes *atomic.Int64) {
	w.t.Helper()
	w.ok(w.tree.Close())
	tree, err := sftp.Open(w.t.Context(), sftp.Options{Path: w.slave, Host: "test", Master: w.uuid, Session: w.session,
		Version: "test", Force: true, Streams: 1, Logger: zerolog.Nop(),
		Open: func(context.Context, int) (io.ReadWriteCloser, error) {
			rwc, err := serveSFTP(w.t)
			return tapped{rwc, bytes}, err
		}})
	w.ok(err)
	w.t.Cleanup(func() { tree.Close() })
	w.over(tree)
}

// TestSettledNamesAreLinkedToOne: the names that are looked for on the master are linked to one that the slave has, which it need not
// look for among all that it knows.
func TestSettledNamesAreLinkedToOne(t *testing.T) {
	const names = 40
	w := inMemory(t, true)
	o := &order{}
	w.wrap = func(inner slave.Tree) slave.Tree { o.Tree = inner; return o }
	w.connect()
	w.write("a/0", "content")
	w.write("b/f", "")
	w.mark("")
	w.inStep()
	for i := 1; i < names; i++ {
		w.ok(os.Link(w.at("a/0"), w.at("b", fmt.Sprint(i))))
	}
	w.tell("b/1")
	w.inStep()
	if o.searched > 2 {
		t.Errorf("%d of %d links are to any of the names", o.searched, names)
	}
}
