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
	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// filesAtOnce is how many files are read back at the same time.
const filesAtOnce = 64

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
	t := &Tree{host: &host{}, log: o.Logger, o: o, closing: make(chan struct{}), done: make(chan struct{})}
	if err := t.connect(ctx); err != nil {
		return Restored{}, err
	}
	defer t.hangUp()
	stop := context.AfterFunc(ctx, t.hangUp)
	defer stop()
	if err := t.openForReading(); err != nil {
		return Restored{}, err
	}
	if err := emptyDir(dest); err != nil {
		return Restored{}, err
	}
	r := &restore{t: t, dest: dest, inodes: map[xtime.GFID]*inode{}}
	top, _, err := t.idx.Get(index.Top, index.TopName)
	if err == nil {
		err = r.dir(ctx, "", top)
	}
	return r.out, err
}

// openForReading finds the root and reads the index, of which what a journal says may be wrong is not believed.
func (t *Tree) openForReading() error {
	if err := t.openRoot(); err != nil {
		return err
	}
	if have, err := t.readOwner(); err != nil || have == nil {
		return fmt.Errorf("slave %s: %w: it has no owner on record, so nothing was replicated to it by georep: %w", t.name(),
			slave.ErrNoVolume, err)
	}
	t.feat.times = true
	t.idx = index.New(store{t})
	for _, name := range logNames {
		text, err := t.readSmall(name)
		if err == nil {
			_, err = t.idx.Recover(text)
		}
		if ignoreAbsent(err) != nil {
			return err
		}
	}
	return nil
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

// restore is one at work. Directories are walked by one goroutine; the files of one are restored by many.
type restore struct {
	t    *Tree
	dest string

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
	listed := map[string]wire.Attrs{}
	err := r.t.list(path, func(n wire.Name) error {
		if path != "" || n.Name != slave.Reserved {
			listed[n.Name] = n.Attrs
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %q on the slave: %w", path, err)
	}
	entries := map[string]index.Entry{}
	if e.ID != 0 {
		err = r.t.idx.Each(e.ID, func(name string, e index.Entry) bool {
			// The index lies with somebody else, who may have written names into it that lead elsewhere.
			if !beneath.ValidName(name) {
				r.note(beneath.Join(path, name), errNoName)
				return true
			}
			if a, there := listed[name]; r.t.fits(&e, there, a) {
				entries[name] = e
			}
			return true
		})
	}
	if err != nil {
		return err
	}
	for name, a := range listed {
		if _, known := entries[name]; !known {
			r.out.Unknown++
			entries[name] = shown(a)
		}
	}
	if err := r.files(ctx, path, entries); err != nil {
		return err
	}
	for name, e := range entries {
		if e.Kind != slave.Dir {
			continue
		}
		sub := beneath.Join(path, name)
		if err := os.Mkdir(r.local(sub), 0o700); err != nil {
			return err
		}
		if err := r.dir(ctx, sub, e); err != nil {
			return err
		}
	}
	// After what lies in it: making entries would change its time, and its mode might forbid to.
	r.attributes(path, &e)
	return nil
}

// local is where a path of the slave is restored to.
func (r *restore) local(path string) string { return filepath.Join(r.dest, path) }

// shown is the entry of what the index does not know.
func shown(a wire.Attrs) index.Entry {
	return index.Entry{Kind: kindOf(a), Size: a.Size, Meta: slave.Meta{Mode: a.Mode & 0o7777, UID: a.UID, GID: a.GID,
		Mtime: beneath.Time{Sec: int64(a.Mtime)}}}
}

// files restores all but directories, many at the same time.
func (r *restore) files(ctx context.Context, dir string, entries map[string]index.Entry) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(filesAtOnce)
	for name, e := range entries {
		if e.Kind != slave.Dir {
			g.Go(func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				return r.entry(beneath.Join(dir, name), e)
			})
		}
	}
	return g.Wait()
}

// entry restores one entry; a further name of an inode that is here already becomes a link.
func (r *restore) entry(path string, e index.Entry) error {
	if e.Links <= 1 || e.Record.GFID.IsZero() {
		return r.make(path, &e)
	}
	r.mu.Lock()
	i := r.inodes[e.Record.GFID]
	if i == nil {
		i = &inode{path: path, record: e.Record}
		r.inodes[e.Record.GFID] = i
	}
	r.mu.Unlock()
	var err error
	i.once.Do(func() { err = r.make(i.path, &e) })
	if i.path == path || err != nil {
		return err
	}
	if i.record != e.Record {
		return r.make(path, &e) // another state of the inode: it is on its way to this name
	}
	err = unix.Linkat(unix.AT_FDCWD, r.local(i.path), unix.AT_FDCWD, r.local(path), 0)
	if errors.Is(err, fs.ErrNotExist) {
		r.note(path, err) // the inode could not be made here, which has been noted, too
		return nil
	}
	return err
}

// make makes an entry with its content and attributes.
func (r *restore) make(path string, e *index.Entry) error {
	r.mu.Lock()
	r.out.Entries++
	r.mu.Unlock()
	to := r.local(path)
	var err error
	switch {
	case e.Kind == slave.File:
		err = r.content(path, to, e)
	case e.Kind == slave.Symlink:
		target := e.Meta.Target
		if !e.Virtual {
			target, err = r.t.any().Readlink(r.t.abs(path))
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
func (r *restore) content(path, to string, e *index.Entry) error {
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	in, err := r.t.any().Open(r.t.abs(path), wire.OpenRead, wire.Attrs{})
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
