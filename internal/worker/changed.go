package worker

import (
	"context"
	"sync"
	"time"

	"georep/monitor/report"
	"georep/slave"
)

const (
	// maxChanged bounds the paths that are remembered until they are durable and told. Beyond it "all" is said.
	maxChanged = 10000
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

// changes are what was applied on the slave, for a hook that wants to know. A path is told once it is durable there: that is so
// once a directory has been stamped whose stamp was sent after the path was applied. Where it cannot say which, it says "all".
type changes struct {
	mu    sync.Mutex
	seq   uint64            // of the last that was applied
	list  []change          // applied, and not known to be durable
	ready map[string]change // durable, and to be told
	all   bool              // is to be told
}

type change struct {
	seq  uint64
	path string
	what byte
}

// newChanges begins with all: what a worker before this one applied and did not tell nobody knows. And once more when that
// is durable.
func newChanges() *changes {
	return &changes{all: true, list: []change{{what: allOfThem}}, ready: map[string]change{}}
}

// telling is a slave that notes what is applied to it.
type telling struct {
	slave.Tree
	changes *changes
}

// Apply notes what was applied. Nobody knows that of a call that failed.
func (t telling) Apply(ctx context.Context, batch *slave.Batch) ([]slave.Result, error) {
	before := t.changes.begin()
	results, err := t.Tree.Apply(ctx, batch)
	t.changes.end(before, batch, results, err)
	return results, err
}

// begin returns the last change that is surely applied before a batch that is about to be sent.
func (c *changes) begin() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seq
}

// end notes the results of a batch.
func (c *changes) end(before uint64, batch *slave.Batch, results []slave.Result, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || len(results) != len(batch.Ops) {
		c.seq++
		c.list = append(c.list[:0], change{seq: c.seq, what: allOfThem})
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
	}
	if len(c.list) > maxChanged {
		c.list = append(c.list[:0], change{seq: c.seq, what: allOfThem})
	}
}

// of is what an operation changes. Of an inode with several names all names have changed.
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
func (c *changes) durable(seq uint64) {
	left := c.list[:0]
	for _, one := range c.list {
		if one.seq <= seq {
			c.tell(one)
		} else {
			left = append(left, one)
		}
	}
	c.list = left
}

// tell has a change told. The caller holds mu.
func (c *changes) tell(one change) {
	if one.what == allOfThem || len(c.ready) >= maxChanged {
		c.all = true
		clear(c.ready)
	}
	// What all stands for comes before the next report: nothing more need be said of it.
	if !c.all && one.what > c.ready[one.path].what {
		c.ready[one.path] = one
	}
}

// take returns what is to be told now, nil for nothing.
func (c *changes) take() *report.Changed {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all {
		c.all = false
		return &report.Changed{All: true}
	}
	if len(c.ready) == 0 {
		return nil
	}
	out := &report.Changed{}
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
		delete(c.ready, path)
	}
	return out
}

// run tells the monitor until stop is called, and the rest then.
func (c *changes) run(tell func(report.Changed) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(toldEvery)
		defer tick.Stop()
		for {
			ended := ctx.Err() != nil
			for out := c.take(); out != nil; out = c.take() {
				if tell(*out) != nil {
					return // the monitor is gone; the next one hears "all"
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

// tellChanges has what is applied told to the monitor, where a hook wants that. Otherwise it costs nothing.
func tellChanges(c *Config, tree slave.Tree, reports *report.Writer) (slave.Tree, func()) {
	o, err := c.Session.Options()
	if err != nil || !o.Hook.WantsChanged() {
		return tree, func() {}
	}
	changes := newChanges()
	return telling{tree, changes}, changes.run(reports.Changed)
}
