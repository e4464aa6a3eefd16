package sftp

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/wire"
)

// Count counts the entries at and below each path. What cannot be listed counts as one.
func (rd *reader) Count(ctx context.Context, paths []string, limit int64) ([]int64, error) {
	if err := rd.enter(); err != nil {
		return nil, err
	}
	defer rd.leave()
	all := make([]int64, len(paths))
	for i, path := range paths {
		if !slave.AllowedPath(path) || limit <= 0 {
			continue
		}
		if _, err := rd.lstat(path); err != nil {
			dir, name := beneath.Split(path)
			if rd.virtual(dir, name) {
				all[i] = 1
			}
			continue
		}
		c := counter{r: rd, ctx: ctx, limit: limit, slots: make(chan struct{}, surveysAtOnce)}
		c.n.Store(1)
		c.count(path)
		c.wait.Wait()
		if err := rd.live(ctx); err != nil {
			return nil, err
		}
		all[i] = min(c.n.Load(), limit)
	}
	return all, nil
}

// counter counts what lies below one path, many directories at the same time. Errors of single directories do not matter:
// the number is for a decision about shares of the tree.
type counter struct {
	r     *reader
	ctx   context.Context
	limit int64
	n     atomic.Int64
	text  atomic.Int64 // of the paths that are to be looked at
	slots chan struct{}
	wait  sync.WaitGroup
}

// errEnough ends a listing early, and is told to nobody.
var errEnough = errors.New("enough")

// count counts what lies in a directory, by itself or by another goroutine where a slot is free.
func (c *counter) count(dir string) {
	if a, err := c.r.lstat(dir); dir != "" && (err != nil || kindOf(a) != slave.Dir) {
		return
	}
	var dirs nameList
	_ = c.r.list(dir, func(n wire.Name) error {
		if beneath.Join(dir, n.Name) == slave.Reserved {
			return nil
		}
		if c.n.Add(1) >= c.limit || c.r.live(c.ctx) != nil {
			return errEnough
		}
		if kindOf(n.Attrs) == slave.Dir && dirs.add(&c.text, n.Name) > maxCountText {
			c.n.Store(c.limit)
			return errEnough
		}
		return nil
	})
	dirs.each(&c.text, func(name string) bool {
		d := beneath.Join(dir, name)
		if c.n.Load() >= c.limit {
			return false
		}
		select {
		case c.slots <- struct{}{}:
			c.wait.Go(func() {
				defer func() { <-c.slots }()
				c.count(d)
			})
		default:
			c.count(d)
		}
		return true
	})
}
