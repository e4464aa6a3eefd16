package marker

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/coverage"
	"georep/marker/fanotify"
	"georep/marker/hint"
	"georep/marker/scan"
	"georep/marker/statefile"
	"georep/marker/tree"
	"georep/marker/xtime"
)

// core is what stamps: one per running marker. It serialises all marks, so that each gets a newer xtime than the one
// before it on every directory they share.
type core struct {
	*tree.Volume
	// files reads and writes what the marker keeps between runs, in dir. Tests make its calls fail.
	files statefile.FS
	dir   string // Options.Dir
	// clock is this volume's only source of xtimes.
	clock *Clock

	// set writes one xtime. Tests make it fail.
	set func(d *beneath.Dir, name string, t xtime.Time) error
	// setByKey does it for an inode by its handle.
	setByKey func(k beneath.HandleKey, t xtime.Time) error
	tree     directories // nil where there are no events

	mu       sync.Mutex     // held during a mark
	retry    *batch         // what failed and has to be marked again; under mu
	arrivals arrivals       // under mu, but for what it says
	detached detachedInodes // under mu, but for what it says
	wantScan func()         // asks for a scan that meets detached inodes and arrivals; called with mu held

	// scans outlives single scans. Each one adds what it learnt, such as which directories it
	// covered.
	scans *scan.State // what scans leave to each other
	asked asked
	reports
}

// reports are what a marker tells others. Nothing that marks depends on them.
type reports struct {
	troubles troubles
	telling  telling
	counts   counts
}

// telling is who is told of marks.
type telling struct {
	hints *hint.Server // nil where nobody is told
	// certain tells whether all events since the last scan were seen: only then do names say all. nil: yes.
	certain func() bool
}

// asked is what others want of the goroutine that marks.
type asked struct {
	ticked Tick // the last one that was taken; the status' only
	// files is what a look at held files found to be marked.
	files atomic.Pointer[request]
	// stirred says that something was marked since that look began.
	stirred atomic.Bool
}

// counts are for the status, and may be read from any goroutine.
type counts struct {
	retrying  atomic.Int64 // marks to be tried again
	overflows atomic.Int64 // how often the kernel dropped events
	marks     atomic.Int64 // batches that were marked
}

// warnBurst lines of what is said often may be written in a warnPeriod.
const (
	warnBurst  = 20
	warnPeriod = time.Minute
)

// directories finds directories again by the keys that the source of events has for them: file
// handles, or watches. It is used with core.mu held. What dir returns is good until the next call
// of dir, and until the source is read. One implementation has file handles for keys (handles.go),
// the other numbers of inotify's watches (watch.go). A key stays valid across renames of the
// directory, and ends with the directory. An error of any method is about that directory alone;
// what it means, tree.Judge decides.
type directories interface {
	key(d *beneath.Dir) (beneath.HandleKey, error)
	dir(k beneath.HandleKey) (*beneath.Dir, error)
	// reopen opens k to be listed. The result is the caller's. It needs no lock. inotify.ErrStale: it moved, or what it lies
	// in did, and an event that was not read yet will tell.
	reopen(k beneath.HandleKey) (*beneath.Dir, error)
	// number is beneath.Stat.Number of k, by the root's device, where that is known without a look.
	number(k beneath.HandleKey) (n uint64, known bool)
	// chain is k and the directories above it, the root last; nil where k does not lie below the root.
	chain(k beneath.HandleKey) ([]beneath.HandleKey, error)
	// parent is the directory that k lies in, as far as that is known without a look; of the root it is not.
	parent(k beneath.HandleKey) (up beneath.HandleKey, known bool)
	// top is the root's key.
	top() beneath.HandleKey
	// gfid is that of k, open as d; nil where it could not be opened. Zero: it is not known.
	gfid(k beneath.HandleKey, d *beneath.Dir) xtime.GFID
	// moved says that a directory moved.
	moved()
	// letGo closes what is kept open of directories that were removed, or of all.
	letGo(all bool)
	// expect says that d lies below the root. It needs no lock.
	expect(d *beneath.Dir)
	close()
}

// newCore opens the volume's root and proves that it is the recorded one. On success the core owns
// the root, and close gives it back. o.Identity is filled in. Nothing is marked, and no events are
// heard, before the caller arms a source.
func newCore(o *Options) (*core, error) {
	root, err := openMaster(o)
	if err != nil {
		return nil, err
	}
	v := &tree.Volume{Root: root, Names: xtime.NamesFor(o.Namespace, o.UUID), Log: o.Logger, Mark: o.VolumeMark,
		Often: o.Logger.Sample(&zerolog.BurstSampler{Burst: warnBurst, Period: warnPeriod})}
	c := &core{Volume: v, files: statefile.FS{Hook: o.hook}, dir: o.Dir, retry: newBatch(), wantScan: func() {}}
	c.troubles.vol = v
	c.scans = &scan.State{Volume: v, Marker: scanMarker{c}, Own: &scan.OwnMarks{}, Cover: coverage.New(o.Dir, c.files)}
	c.arrivals = arrivals{vol: v, cover: c.scans.Cover, upTo: &c.scans.UpTo, wanted: func() { c.wantScan() }, open: map[beneath.HandleKey]arrival{}}
	c.set = func(d *beneath.Dir, name string, t xtime.Time) error { return d.SetXtime(name, &c.Names, t) }
	c.setByKey = func(k beneath.HandleKey, t xtime.Time) error { return c.Root.SetXtimeOfKey(k, &c.Names, t) }
	if err := c.start(); err != nil {
		root.Close()
		return nil, err
	}
	return c, nil
}

// start reads what the core begins with: the root's device and mount, and the newest xtime on the
// tree, above which the clock starts even if its file was lost.
func (c *core) start() (err error) {
	if c.RootStat, err = c.Root.Stat(""); err != nil {
		return err
	}
	floor, err := c.Root.Xtime("", &c.Names)
	if err != nil {
		return fmt.Errorf("read the root's xtime: %w", err)
	}
	c.clock, err = openClock(filepath.Join(c.dir, clockFile), floor, time.Now, c.files)
	return err
}

// close gives back every descriptor, and writes down where the clock stands.
func (c *core) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tree != nil {
		c.tree.close()
	}
	return errors.Join(c.clock.Close(), c.Root.Close())
}

// stamp marks one entry of d ("" is d itself) and decides about a failure. It is called with mu
// held. Done and Bumped mean that crawls will see the change. Refused is for good, until the entry
// changes: the caller goes on, and the status names it. Again is for a failure that may pass. A
// directory that could not take the xtime but could be bumped counts as marked.
func (c *core) stamp(d *beneath.Dir, name string, t xtime.Time) tree.Result {
	err := c.set(d, name, t)
	if err == nil {
		return tree.Done
	}
	hasCtime := false
	v := tree.Judge(err, func() bool {
		if c.ByCtime(d, name) {
			return true
		}
		hasCtime = c.bump(d, name, t)
		return hasCtime
	})
	switch v {
	case tree.Refused:
		c.troubles.refuse(d, name, err)
	case tree.Again:
		c.troubles.failed(d, name, err)
	}
	if hasCtime {
		return tree.Bumped
	}
	return v
}

// retryLater records a mark that has to be tried again, and tells whether it could: without events there is no way to come back
// to an entry, and the whole scan has to be repeated. It is called with mu held.
func (c *core) retryLater(d *beneath.Dir, name string) bool {
	if c.tree == nil || c.retry.size() >= maxRetries {
		return false
	}
	key, err := c.tree.key(d)
	if err != nil {
		return false
	}
	c.retry.add(fanotify.Place{Dir: key, Name: name})
	c.counts.retrying.Store(c.retries())
	return true
}

// rootError is an error of the volume's root with what to do about it.
func rootError(path string, err error) error {
	err = beneath.RootError(path, tree.Bare(err))
	if tree.IsAny(err, unix.ENOENT, unix.ENOTDIR, unix.ELOOP) {
		err = fmt.Errorf("%w: %w", ErrNotMaster, err)
	}
	return fmt.Errorf("open volume %s: %w", path, err)
}

// openMaster opens the root and proves that it is the volume's. The result is the caller's to
// close. ErrNotMaster, wrapped, is for the operator: the path leads to something else, or to
// nothing. Every other error may pass.
func openMaster(o *Options) (*beneath.Dir, error) {
	root, err := beneath.OpenRoot(o.Root, true)
	if err != nil {
		return nil, rootError(o.Root, err)
	}
	root.Hook(o.hook)
	if err := root.Enterable(); err != nil {
		root.Close()
		return nil, rootError(o.Root, err)
	}
	id, err := root.Identity()
	if err == nil && !o.Identity.GFID.IsZero() && id.GFID != o.Identity.GFID {
		err = fmt.Errorf("volume %s: %w: it is another directory than the one recorded (is the file system mounted?)",
			o.Root, ErrNotMaster)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	o.Identity = id
	return root, nil
}
