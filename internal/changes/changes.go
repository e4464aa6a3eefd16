// Package changes tells which paths have become durable on a slave, by what is applied to it: on the master's side to a worker, on the
// slave's side to an agent.
package changes

import (
	"context"
	"sync"
	"time"

	"georep/slave"
)

const (
	// most and mostBytes bound the paths that are remembered until they are durable, and again until they are told. Beyond them "all"
	// is said.
	most      = 10000
	mostBytes = 4 << 20
	// toldEvery is how often paths are told, and toldAtOnce of how many paths and bytes one report is at most.
	toldEvery  = time.Second
	toldAtOnce = 1000
	toldBytes  = 256 << 10
)

// What a change is of. 0 is none.
const (
	allOfThem byte = 1 + iota // every path
	onePath
	wholeTree // a directory, with all below it, has come or gone
)

// Told are paths, of any bytes, that have become durable, or All where nobody knows which.
type Told struct {
	All   bool     `json:"all"`
	Paths [][]byte `json:"paths,omitempty"`
	Trees [][]byte `json:"trees,omitempty"` // directories that have come or gone, with all below them
}

// Changes are what was applied on the slave, for a hook that wants to know. A path is told once it
// is durable there: that is so once a directory has been stamped whose stamp was sent after the
// path was applied. Where it cannot say which, it says "all". It may be used from any goroutine;
// batches may overlap.
type Changes struct {
	mu  sync.Mutex
	seq uint64 // of the last that was applied
	// list has the changes in the order in which their results came.
	list  []change          // applied, and not known to be durable
	ready map[string]change // durable, and to be told
	all   bool              // is to be told
	// How many bytes the paths of both have.
	listBytes, readyBytes int
}

// seq says when it was applied, by the count of Changes; it is not the number of a batch.
type change struct {
	seq  uint64
	path string
	what byte
}

// New begins with all: what was applied before and not told nobody knows. And once more when that is durable.
func New() *Changes {
	return &Changes{all: true, list: []change{{what: allOfThem}}, ready: map[string]change{}}
}

// Begin returns the last change that is surely applied before a batch that is about to be sent.
func (c *Changes) Begin() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seq
}

// End notes the results of a batch. Nobody knows what was applied of one that failed. before is
// what Begin gave when the batch was sent. A stamp in it makes durable what was applied before
// that, and what stands in the batch before the stamp, since the slave syncs both first.
func (c *Changes) End(before uint64, batch *slave.Batch, results []slave.Result, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || len(results) != len(batch.Ops) {
		c.seq++
		c.forget()
		return
	}
	var mine []change
	for i := range batch.Ops {
		op := &batch.Ops[i]
		switch {
		case op.Kind == slave.OpFinish && op.Stamp && results[i].Err == nil:
			mine = append(mine, of(op))
			c.durable(before)
			for _, one := range mine {
				c.tell(one)
			}
			mine = mine[:0]
		case results[i].Err == nil || results[i].Parked:
			mine = append(mine, of(op))
		}
	}
	for _, one := range mine {
		c.seq++
		one.seq = c.seq
		c.list = append(c.list, one)
		c.listBytes += len(one.path)
	}
	if len(c.list) > most || c.listBytes > mostBytes {
		c.forget()
	}
}

// forget has all stand for what is not known to be durable. The caller holds mu.
func (c *Changes) forget() {
	c.list, c.listBytes = append(c.list[:0:0], change{seq: c.seq, what: allOfThem}), 0
}

// of is what an operation changes. Of an inode with several names all names have changed. A
// trailing slash tells hooks that a directory's own properties have changed, and not what is in it.
func of(op *slave.Op) change {
	one := change{path: op.Path, what: onePath}
	isDir := op.Entry == slave.Dir || op.Entry == 0
	switch {
	case op.Kind == slave.OpFinish && op.Path == "":
		one.path = "./"
	case op.Kind == slave.OpFinish:
		one.path += "/"
	case op.Kind == slave.OpFilter || op.Links > 1 && (op.Kind == slave.OpPut || op.Kind == slave.OpMeta):
		one.what = allOfThem
	case op.Kind == slave.OpMkdir || isDir && (op.Kind == slave.OpPark || op.Kind == slave.OpUnpark):
		one.what = wholeTree
	}
	return one
}

// durable takes over what was applied up to seq. The caller holds mu.
func (c *Changes) durable(seq uint64) {
	left := c.list[:0]
	for _, one := range c.list {
		if one.seq <= seq {
			c.tell(one)
			c.listBytes -= len(one.path)
		} else {
			left = append(left, one)
		}
	}
	clear(c.list[len(left):])
	c.list = left
}

// tell has a change told. The caller holds mu. A whole tree outweighs one path of the same name.
func (c *Changes) tell(one change) {
	if one.what == allOfThem || len(c.ready) >= most || c.readyBytes+len(one.path) > mostBytes {
		c.all = true
		clear(c.ready)
		c.readyBytes = 0
	}
	// What all stands for comes before the next report: nothing more need be said of it.
	was, there := c.ready[one.path]
	if c.all || one.what <= was.what {
		return
	}
	if !there {
		c.readyBytes += len(one.path)
	}
	c.ready[one.path] = one
}

// take returns what is to be told now, nil for nothing. What is taken is forgotten here: whoever
// fails to pass it on says "all" afterwards. It gives at most toldAtOnce paths.
func (c *Changes) take() *Told {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all {
		c.all = false
		return &Told{All: true}
	}
	if len(c.ready) == 0 {
		return nil
	}
	out := &Told{}
	size := 0
	for path, one := range c.ready {
		if n := len(out.Paths) + len(out.Trees); n >= toldAtOnce || n > 0 && size+len(path) > toldBytes {
			break
		}
		size += len(path)
		if one.what == wholeTree {
			out.Trees = append(out.Trees, []byte(path))
		} else {
			out.Paths = append(out.Paths, []byte(path))
		}
		c.readyBytes -= len(path)
		delete(c.ready, path)
	}
	return out
}

// Run tells what is durable, about once a second, until stop is called, and the rest then. It ends
// when tell fails. stop waits until the last report is told. tell is called from one goroutine, and
// without a lock held.
func (c *Changes) Run(tell func(Told) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(toldEvery)
		defer tick.Stop()
		for {
			ended := ctx.Err() != nil
			for out := c.take(); out != nil; out = c.take() {
				if tell(*out) != nil {
					return // nobody listens any more; the next one hears "all"
				}
			}
			if ended {
				return
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}
