package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/internal/beneath"
	"georep/internal/filter"
	"georep/slave"
)

// total is how much a master holds. It is filled by one goroutine and may be read by any. It is a
// guess for people: entries that come and go while it counts may be counted or not.
type total struct {
	entries atomic.Int64 // below the root
	bytes   atomic.Int64 // of content; what has several names counts once
	known   atomic.Bool  // the count is complete

	filter *filter.Filter // what is left out does not count
	enough int64          // bytes after which the count ends; 0: none
}

// What makes a master one with much to send, and how many entries are looked at to find out.
const (
	muchBytes   = 16 << 20
	muchEntries = 20_000
)

// errCounted ends a count that has found what it was for.
var errCounted = errors.New("counted as far as was asked for")

// holdsMuch tells whether a tree holds so much that all of a session's streams are worth their opening at once. It stops
// when it knows.
func holdsMuch(ctx context.Context, root *beneath.Dir) bool {
	t := &total{enough: muchBytes}
	_ = t.count(ctx, root) // whatever ended it
	return t.bytes.Load() >= muchBytes
}

// dirChunk bounds the names of directories that are kept at a time, for each level of depth.
const dirChunk = 1024

// countQuietly counts with the lowest priority that the machine knows, for the processor and for disks. What it cannot
// read is not counted: the crawl says what is wrong there. Without its end the total stays unknown.
func (t *total) countQuietly(ctx context.Context, root *beneath.Dir) error {
	// Priorities are a thread's. The thread is not unlocked, so it ends with this goroutine and nobody inherits them.
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		lowerPriority()
		done <- t.count(ctx, root)
	}()
	return <-done
}

// lowerPriority makes the calling thread wait for all others. That it is refused would harm nobody.
func lowerPriority() {
	const (
		nicest      = 19
		whoProcess  = 1       // IOPRIO_WHO_PROCESS: a thread, 0 for the caller
		idleClass   = 3 << 13 // IOPRIO_CLASS_IDLE: the disk only when nobody else wants it
		thisProcess = 0
	)
	unix.Setpriority(unix.PRIO_PROCESS, thisProcess, nicest)
	unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, thisProcess, idleClass)
}

// count walks the tree. An error is ctx's, or says that the root cannot be listed. What it cannot
// read, below the root, counts as nothing.
func (t *total) count(ctx context.Context, root *beneath.Dir) error {
	d, err := root.OpenDir("")
	if err != nil {
		return fmt.Errorf("count the master's entries: %w", err)
	}
	c := counting{total: t, ctx: ctx, dir: d, top: true, rules: t.filter.Root()}
	if err := c.run(); err != nil {
		return fmt.Errorf("count the master's entries: %w", err)
	}
	t.known.Store(true)
	return nil
}

// counting is the state of one directory. Directories are kept open down to where the walk is, which is one more
// descriptor a level; no names are kept but a chunk a level.
type counting struct {
	total *total
	ctx   context.Context
	dir   *beneath.Dir // owned
	top   bool         // the root, where georep's own directory does not count
	dirs  []string
	rules *filter.Dir
}

// run counts the directory and all below it, and closes it. Only the root's own trouble is an error, and ctx's end.
func (c *counting) run() error {
	defer c.dir.Close()
	c.rules = crawler.Tagged(c.total.filter, c.rules, c.dir)
	err := c.dir.List(c.entry)
	if err == nil {
		err = c.descend()
	}
	if c.ctx.Err() != nil {
		return c.ctx.Err()
	}
	if !c.top && !errors.Is(err, errCounted) {
		return nil
	}
	return err
}

// entry counts one. An error ends the whole count: ctx's, or errCounted.
func (c *counting) entry(e beneath.Entry) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if c.top && e.Name == slave.Reserved {
		return nil
	}
	st, err := c.dir.Stat(e.Name)
	if err != nil {
		return nil // gone, or unreadable
	}
	if crawler.LeavesOut(c.rules, e.Name, &st) {
		return nil
	}
	entries, bytes := c.total.entries.Add(1), c.total.bytes.Add(crawler.Share(&st))
	if enough := c.total.enough; enough > 0 && (bytes >= enough || entries >= muchEntries) {
		return errCounted
	}
	if st.IsDir() {
		c.dirs = append(c.dirs, e.Name)
	}
	if len(c.dirs) >= dirChunk {
		return c.descend()
	}
	return nil
}

// descend counts below the directories collected so far. Where another file system is mounted there is nothing to count.
func (c *counting) descend() error {
	dirs := c.dirs
	c.dirs = nil
	for _, name := range dirs {
		d, err := c.dir.OpenDir(name)
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			return err // the crawl needs descriptors more than this
		}
		if err != nil {
			continue
		}
		below := counting{total: c.total, ctx: c.ctx, dir: d, rules: c.rules.Down(name)}
		if err := below.run(); err != nil {
			return err
		}
	}
	return nil
}
