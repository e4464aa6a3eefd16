package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// What is under way at the same time: files that are read back, the bytes that were asked for of them, and directories.
const (
	filesAtOnce = 256
	dirsAtOnce  = 64
	bytesAtOnce = 64 << 20
)

// Restored tells what a restore brought back.
type Restored struct {
	Entries int64
	Bytes   int64
	// Unknown counts entries that the index knows nothing of: they have what their files show.
	Unknown int64
	// Kept lists what could not be set here, by path, the first of them.
	Kept []error
}

// Restore copies a slave to the local directory dest, which must be empty or missing, with all that its index has: owners,
// nanoseconds, xattrs, hard links, and the entries that SFTP cannot make. It changes nothing on the slave, and needs nothing
// of the master's host. o.Master, Session and Force do not count.
func Restore(ctx context.Context, o Options, dest string) (Restored, error) {
	a := newInspector(o)
	if err := a.connect(ctx); err != nil {
		return Restored{}, err
	}
	stop := context.AfterFunc(ctx, func() { a.fail(context.Cause(ctx)); a.hangUp() })
	defer func() {
		stop()
		a.fail(ErrClosed)
		a.hangUp()
		a.loops.Wait()
	}()
	if err := a.openForReading(); err != nil {
		return Restored{}, err
	}
	a.beginLate()
	if err := emptyDir(dest); err != nil {
		return Restored{}, err
	}
	r := &restore{from: a.reader, dest: dest, inodes: map[xtime.GFID]*inode{}, dirs: make(chan struct{}, dirsAtOnce),
		files: make(chan struct{}, filesAtOnce), bytes: semaphore.NewWeighted(bytesAtOnce)}
	top, _, err := a.idx.Get(index.Top, index.TopName)
	if err == nil {
		err = r.dir(ctx, "", top)
	}
	return r.out, err
}

// openForReading finds the root and reads the index, of which what a journal says may be wrong is not believed.
func (a *Inspector) openForReading() error {
	if err := a.own.openRoot(); err != nil {
		return err
	}
	if have, err := a.own.readOwner(); err != nil || have == nil {
		if lost := a.first().Err(); lost != nil {
			return fmt.Errorf("open slave %s: %w", a.name(), lost)
		}
		return fmt.Errorf("slave %s: %w: it has no owner on record, so nothing was replicated to it by georep: %w", a.name(),
			slave.ErrNoVolume, err)
	}
	a.feat.times = true
	a.idx = index.New(readOnly{files{a.space}})
	journals := make([][]byte, len(logNames))
	if err := a.readJournals(journals); err != nil {
		return err
	}
	_, err := a.idx.Recover(journals...)
	return err
}

// emptyDir makes the place for the copy, or takes an empty one.
func emptyDir(path string) error {
	if err := os.Mkdir(path, 0o700); err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	list, err := os.ReadDir(path)
	if err == nil && len(list) > 0 {
		err = fmt.Errorf("restore to %s: %w: name a directory that is empty or not there yet", path, unix.ENOTEMPTY)
	}
	return err
}

// restore is one at work. What lies in a directory is restored by many goroutines, and so are many directories.
type restore struct {
	from *reader
	dest string
	// dirs, files and bytes bound what is under way.
	dirs, files chan struct{}
	bytes       *semaphore.Weighted

	// mu guards out and inodes.
	mu  sync.Mutex
	out Restored
	// inodes are those with several names that were met so far, with the first of their names.
	inodes map[xtime.GFID]*inode
}

// inode is one with several names.
type inode struct {
	// once makes the inode, under path; whoever has another name of it waits for that.
	once   sync.Once
	path   string
	record slave.Record
}

// maxKept bounds Restored.Kept.
const maxKept = 20

var errNoName = errors.New("this is no name; the slave's index is damaged, or was tampered with, and what it has there was left out")

// note remembers what could not be set.
func (r *restore) note(path string, err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.out.Kept) < maxKept {
		r.out.Kept = append(r.out.Kept, fmt.Errorf("%q: %w", path, err))
	}
}

// dir restores what lies in a directory, then its own attributes.
func (r *restore) dir(ctx context.Context, path string, e index.Entry) error {
	entries, err := r.entries(ctx, path, e)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for name, e := range entries {
		sub := beneath.Join(path, name)
		if e.Kind != slave.Dir {
			r.begin(gctx, g, r.files, func() error { return r.entry(gctx, sub, e) })
		}
	}
	for name, e := range entries {
		sub := beneath.Join(path, name)
		if e.Kind == slave.Dir {
			r.beginDir(g, func() error { return r.subdir(gctx, sub, e) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	// After what lies in it: making entries would change its time, and its mode might forbid to.
	r.attributes(path, &e)
	return ctx.Err()
}

// begin does something beside the rest, once there is a slot for it.
func (r *restore) begin(ctx context.Context, g *errgroup.Group, slots chan struct{}, do func() error) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	g.Go(func() error {
		defer func() { <-slots }()
		return do()
	})
}

// beginDir does it at once where there is no slot: whoever waits for what lies in a directory has one, so waiting for another
// could last for ever.
func (r *restore) beginDir(g *errgroup.Group, do func() error) {
	select {
	case r.dirs <- struct{}{}:
		g.Go(func() error {
			defer func() { <-r.dirs }()
			return do()
		})
	default:
		err := do()
		g.Go(func() error { return err })
	}
}

func (r *restore) subdir(ctx context.Context, path string, e index.Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.Mkdir(r.local(path), 0o700); err != nil {
		return err
	}
	return r.dir(ctx, path, e)
}

// entries gives what is to be restored in a directory: what stands there, as the index has it where the two agree, and what
// stands in the index alone. Both are asked for at the same time.
func (r *restore) entries(ctx context.Context, path string, e index.Entry) (map[string]index.Entry, error) {
	listed, recorded := map[string]wire.Attrs{}, map[string]index.Entry{}
	g := new(errgroup.Group)
	g.Go(func() error {
		err := r.from.list(path, func(n wire.Name) error {
			if path != "" || n.Name != slave.Reserved {
				listed[n.Name] = n.Attrs
			}
			return ctx.Err()
		})
		if err != nil {
			return fmt.Errorf("read %q on the slave: %w", path, err)
		}
		return nil
	})
	if e.ID != 0 {
		g.Go(func() error {
			return r.from.idx.Each(e.ID, func(name string, e index.Entry) bool { recorded[name] = e; return ctx.Err() == nil })
		})
	}
	if err := errors.Join(g.Wait(), ctx.Err()); err != nil {
		return nil, err
	}
	r.merge(path, listed, recorded)
	return recorded, nil
}

// settle takes out of recorded what may not be believed, and puts in what it lacks.
func (r *restore) merge(path string, listed map[string]wire.Attrs, recorded map[string]index.Entry) {
	for name, e := range recorded {
		a, there := listed[name]
		// The index lies with somebody else, who may have written names into it that lead elsewhere.
		valid := beneath.ValidName(name)
		if !valid {
			r.note(beneath.Join(path, name), errNoName)
		}
		if !valid || !r.from.fits(&e, there, a) {
			delete(recorded, name)
		}
	}
	unknown := int64(0)
	for name, a := range listed {
		if _, known := recorded[name]; !known {
			unknown++
			recorded[name] = shown(a)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out.Unknown += unknown
}

// local is where a path of the slave is restored to.
func (r *restore) local(path string) string { return filepath.Join(r.dest, path) }

// shown is the entry of what the index does not know.
func shown(a wire.Attrs) index.Entry {
	return index.Entry{Kind: kindOf(a), Size: a.Size, Meta: slave.Meta{Mode: a.Mode & 0o7777, UID: a.UID, GID: a.GID,
		Mtime: beneath.Time{Sec: int64(a.Mtime)}}}
}

// entry restores one entry; a further name of an inode that is here already becomes a link.
func (r *restore) entry(ctx context.Context, path string, e index.Entry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.Links <= 1 || e.Record.GFID.IsZero() {
		return r.make(ctx, path, &e)
	}
	r.mu.Lock()
	i := r.inodes[e.Record.GFID]
	if i == nil {
		i = &inode{path: path, record: e.Record}
		r.inodes[e.Record.GFID] = i
	}
	r.mu.Unlock()
	var err error
	i.once.Do(func() { err = r.make(ctx, i.path, &e) })
	if i.path == path || err != nil {
		return err
	}
	if i.record != e.Record {
		return r.make(ctx, path, &e) // another state of the inode: it is on its way to this name
	}
	err = unix.Linkat(unix.AT_FDCWD, r.local(i.path), unix.AT_FDCWD, r.local(path), 0)
	if errors.Is(err, fs.ErrNotExist) {
		r.note(path, err) // the inode could not be made here, which has been noted, too
		return nil
	}
	return err
}

// make makes an entry with its content and attributes.
func (r *restore) make(ctx context.Context, path string, e *index.Entry) error {
	r.mu.Lock()
	r.out.Entries++
	r.mu.Unlock()
	r.from.o.Seen.Add(1, 0)
	to := r.local(path)
	var err error
	switch {
	case e.Kind == slave.File:
		err = r.content(ctx, path, e)
	case e.Kind == slave.Symlink:
		target := e.Meta.Target
		if !e.Virtual {
			target, err = r.from.any().Readlink(r.from.abs(path))
		}
		if err == nil {
			err = os.Symlink(target, to)
		}
	case e.Kind.Node():
		if err = unix.Mknod(to, e.Kind.TypeBits()|0o600, int(e.Meta.Rdev)); err != nil {
			r.note(path, err)
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("restore %q: %w", path, err)
	}
	r.attributes(path, e)
	return nil
}

// content reads a file back; blocks of zeros become holes.
func (r *restore) content(ctx context.Context, path string, e *index.Entry) error {
	held := min(max(e.Size, readSize), readAhead*readSize)
	if err := r.bytes.Acquire(ctx, held); err != nil {
		return err
	}
	defer r.bytes.Release(held)
	out, err := os.OpenFile(r.local(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	in, err := r.from.any().Open(r.from.abs(path), wire.OpenRead, wire.Attrs{})
	if err != nil {
		return errors.Join(err, out.Close())
	}
	defer in.Release()
	off := int64(0)
	err = readAll(in, e.Size, func(data []byte) error {
		at := off
		off += int64(len(data))
		if zeros(data) {
			return nil
		}
		_, err := out.WriteAt(data, at)
		return err
	})
	if err == nil {
		err = out.Truncate(off)
	}
	r.mu.Lock()
	r.out.Bytes += off
	r.mu.Unlock()
	r.from.o.Seen.Add(0, off)
	return errors.Join(err, out.Close())
}

// zeros tells whether a block can be left out.
func zeros(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// attributes sets what the index has: the owner, which changes the mode, then xattrs, the mode, and the time last.
func (r *restore) attributes(path string, e *index.Entry) {
	to, m := r.local(path), &e.Meta
	r.note(path, os.Lchown(to, int(m.UID), int(m.GID)))
	for _, x := range m.Xattrs {
		r.note(path, unix.Lsetxattr(to, x.Name, x.Value, 0))
	}
	if e.Kind != slave.Symlink {
		r.note(path, unix.Chmod(to, m.Mode&0o7777))
	}
	times := []unix.Timespec{{Sec: m.Mtime.Sec, Nsec: int64(m.Mtime.Nsec)}, {Sec: m.Mtime.Sec, Nsec: int64(m.Mtime.Nsec)}}
	r.note(path, unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW))
}
