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
	"georep/marker/fanotify"
	"georep/marker/hint"
	"georep/marker/moment"
	"georep/marker/statefile"
	"georep/marker/xtime"
)

// core is what stamps: one per running marker. It serialises all marks, so that each gets a newer xtime than the one
// before it on every directory they share.
type core struct {
	root     *beneath.Dir
	rootStat beneath.Stat
	names    xtime.Names
	files    statefile.FS
	clock    *Clock
	dir      string // Options.Dir
	ticked   Tick   // the last one; the status' only
	log      zerolog.Logger
	// often is log for what may be said of every entry, again and again: no more of it than an operator needs.
	often    zerolog.Logger
	refusals refusals
	own      *ownMarks
	cover    *coverage
	times    *ctimes // nil where only this kernel changes the file system, or its events tell
	troubles troubles
	// volumeMark is what it is since the marker is open.
	volumeMark xtime.Time
	moving     movers
	upTo       progress    // of the events
	tree       directories // nil where there are no events

	// set writes one xtime. Tests make it fail.
	set func(d *beneath.Dir, name string, t xtime.Time) error
	// setByKey does it for an inode by its handle.
	setByKey func(k beneath.HandleKey, t xtime.Time) error

	hints *hint.Server // nil where nobody is told
	// certain tells whether all events since the last scan were seen: only then do names say all. nil: yes.
	certain func() bool

	mu    sync.Mutex // held during a mark
	retry *batch     // what failed and has to be marked again; under mu
	// astray are the xtimes of inodes that changed through a name that is gone, and of which no other is known; under mu.
	astray []xtime.Time
	// arrivals are directories that came from outside of the volume, in which everything is yet to be marked; arrived is
	// the last number, and earliest the moment before the first; they change under mu.
	arrivals map[beneath.HandleKey]arrival
	arrived  int
	earliest atomic.Pointer[moment.Moment]
	recent   recent
	young    young
	stray    func() // asks for a scan that meets them; called with mu held
	owing    atomic.Int64
	// overflows is how often the kernel dropped events.
	overflows atomic.Int64
	// marks is how many batches were marked.
	marks    atomic.Int64
	nameless seeker
	// requested is what a look at held files found to be marked; stirred says that something was marked since it began.
	requested atomic.Pointer[request]
	stirred   atomic.Bool
	// unsynced is set while scans have marked what no ctime would tell of, if the marks were lost by a power cut.
	unsynced atomic.Bool
}

// warnBurst lines of what is said often may be written in a warnPeriod.
const (
	warnBurst  = 20
	warnPeriod = time.Minute
)

// directories finds directories again by the keys that the source of events has for them: file handles, or watches. It is
// used with core.mu held. What dir returns is good until the next call of dir, and until the source is read.
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

func newCore(o *Options) (*core, error) {
	root, err := openMaster(o)
	if err != nil {
		return nil, err
	}
	c := &core{root: root, names: xtime.NamesFor(o.Namespace, o.UUID), log: o.Logger, own: &ownMarks{}, volumeMark: o.VolumeMark,
		files: statefile.FS{Hook: o.hook}, retry: newBatch(), arrivals: map[beneath.HandleKey]arrival{}, stray: func() {}}
	c.cover = newCoverage(filepath.Join(o.Dir, coverageFile), c.files)
	c.often = o.Logger.Sample(&zerolog.BurstSampler{Burst: warnBurst, Period: warnPeriod})
	c.set = func(d *beneath.Dir, name string, t xtime.Time) error { return d.SetXtime(name, &c.names, t) }
	c.setByKey = func(k beneath.HandleKey, t xtime.Time) error { return c.root.SetXtimeOfKey(k, &c.names, t) }
	if err := c.start(o.Dir); err != nil {
		root.Close()
		return nil, err
	}
	return c, nil
}

func (c *core) start(dir string) (err error) {
	if c.rootStat, err = c.root.Stat(""); err != nil {
		return err
	}
	floor, err := c.root.Xtime("", &c.names)
	if err != nil {
		return fmt.Errorf("read the root's xtime: %w", err)
	}
	c.dir = dir
	c.clock, err = openClock(filepath.Join(dir, clockFile), floor, time.Now, c.files)
	return err
}

// close gives back every descriptor, and writes down where the clock stands.
func (c *core) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tree != nil {
		c.tree.close()
	}
	return errors.Join(c.clock.Close(), c.root.Close())
}

// stamp marks one entry of d ("" is d itself) and decides about a failure. It is called with mu held.
func (c *core) stamp(d *beneath.Dir, name string, t xtime.Time) verdict {
	err := c.set(d, name, t)
	if err == nil {
		return done
	}
	hasCtime := false
	v := judge(err, func() bool {
		if c.byCtime(d, name) {
			return true
		}
		hasCtime = c.bump(d, name, t)
		return hasCtime
	})
	switch v {
	case refused:
		c.refuse(d, name, err)
	case again:
		c.failed(d, name, err)
	}
	if hasCtime {
		return bumped
	}
	return v
}

// troubles is the last one that keeps the heartbeat from going on. It may be used from any goroutine.
type troubles struct{ last atomic.Pointer[trouble] }

// trouble is what failed, in words for the operator.
type trouble struct{ text string }

// failed says that a mark failed, and will be tried again.
func (c *core) failed(d *beneath.Dir, name string, err error) {
	c.say(d.PathFrom(c.root, name), err, "a mark failed and will be tried again")
}

// unopened says that a directory could not be opened to be marked, or to find out where it lies. Its path is not known, unless
// the error has it; that of one above it may be.
func (c *core) unopened(k beneath.HandleKey, err error) {
	path := "a directory of the volume"
	for up, known := c.tree.parent(k); known; up, known = c.tree.parent(up) {
		d, err := c.tree.dir(up)
		if err == nil {
			path = "a directory in " + d.PathFrom(c.root, "")
			break
		}
	}
	c.say(path, err, "a directory could not be opened to mark it, and will be tried again")
}

// say logs trouble with one entry that will be tried again, and keeps it for the status.
func (c *core) say(path string, err error, what string) {
	err = bare(err)
	c.troubles.last.Store(&trouble{fmt.Sprintf("%q: %v", path, err)})
	c.often.Warn().Str("path", path).Err(err).Msg(what)
}

// such names the last trouble, behind a statement of how many there are.
func (t *troubles) such() string {
	if one := t.last.Load(); one != nil {
		return ", such as " + one.text
	}
	return ""
}

// owe records a mark that has to be tried again, and tells whether it could: without events there is no way to come back
// to an entry, and the whole scan has to be repeated. It is called with mu held.
func (c *core) owe(d *beneath.Dir, name string) bool {
	if c.tree == nil || c.retry.size() >= maxOwed {
		return false
	}
	key, err := c.tree.key(d)
	if err != nil {
		return false
	}
	c.retry.add(fanotify.Place{Dir: key, Name: name})
	c.owing.Store(c.owes())
	return true
}

// rootError is an error of the volume's root with what to do about it.
func rootError(path string, err error) error {
	err = beneath.RootError(path, bare(err))
	if isAny(err, unix.ENOENT, unix.ENOTDIR, unix.ELOOP) {
		err = fmt.Errorf("%w: %w", ErrNotMaster, err)
	}
	return fmt.Errorf("open volume %s: %w", path, err)
}

// openMaster opens the root and proves that it is the volume's.
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
