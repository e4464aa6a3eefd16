package worker

import (
	"context"
	"errors"
	"fmt"

	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// Diverged is an entry that has changed on the master since its slave was last in step with all of it.
type Diverged struct {
	Path  string // relative to the master's root; "" for the root itself
	Dir   bool
	Size  int64      // bytes, of a file
	Xtime xtime.Time // when it was marked
	// Below: it is a directory in which something else is told, and by its mtime no name has come or gone. Whether it has changed itself
	// nobody can tell: its mark is that of what is below.
	Below bool
	Err   error // it could not be looked at, so it may have changed
}

// Divergence tells each entry of the master that has changed since a stamp of the slave's root, as far as the marks tell, and how
// many directories it has read for that. The slave is not asked: it may be gone, or promoted. Directories are told after what is in them.
// An entry that has only moved is told by the directories that it has left and come to. Where each fails, that ends it.
func Divergence(ctx context.Context, c Config, since xtime.Time, each func(Diverged) error) (read int, err error) {
	if err := mark(ctx, c); err != nil {
		return 0, err
	}
	m, err := openMaster(ctx, c)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	fake, err := wasFake(&m.volume)
	if err != nil {
		return 0, err
	}
	src, err := source.OpenLocal(&source.Config{Root: m.Dir, Path: m.volume.Path, Names: xtime.NamesFor(m.ns, m.uuid), VolumeMark: m.mark(),
		Mounts: m.mounts.Get, FakeOwner: fake})
	if err != nil {
		return 0, err
	}
	w := &divergence{ctx: ctx, src: src, since: since, each: each}
	_, gfid, err := src.Head()
	if err == nil {
		_, err = w.directory("", gfid)
	}
	if err == nil {
		err = src.Intact()
	}
	return w.read, err
}

// divergence is one walk. It goes down where the xtime of a directory is newer than since, and nowhere else.
type divergence struct {
	ctx   context.Context
	src   source.Source
	since xtime.Time
	each  func(Diverged) error
	read  int
}

// subdirectory is one to go down into.
type subdirectory struct {
	name string
	gfid xtime.GFID
}

// directory tells of what is in one, and whether it told of anything.
func (w *divergence) directory(path string, gfid xtime.GFID) (told bool, err error) {
	if err := w.ctx.Err(); err != nil {
		return false, err
	}
	d, err := w.src.Open(path, gfid)
	if err != nil {
		return w.unseen(path, err)
	}
	if d.Xtime <= w.since && !d.Refuses {
		return false, d.Dir.Close()
	}
	w.read++
	subs, told, err := w.names(path, d)
	d.Dir.Close() // its descriptor is not held while those below are read: a chain may be longer than a process may have
	for _, sub := range subs {
		if err != nil {
			return told, err
		}
		var more bool
		more, err = w.directory(beneath.Join(path, sub.name), sub.gfid)
		told = told || more
	}
	if err != nil || d.Xtime <= w.since { // a directory that refuses marks is entered in any case
		return told, err
	}
	below := told && xtime.FromTime(source.UnixTime(d.Stat.Mtime)) <= w.since
	return true, w.each(Diverged{Path: path, Dir: true, Below: below, Xtime: d.Xtime})
}

// names tells of what is no directory, and lists the directories to go down into.
func (w *divergence) names(path string, d *source.Directory) (below []subdirectory, told bool, err error) {
	r := w.src.Reader(path, d.Dir, false)
	err = w.src.Names(d.Dir, path == "", func(n beneath.Entry) error {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if r.Covered(n.Name) {
			return nil
		}
		e, err := r.Entry(n.Name)
		switch {
		case err != nil:
			one, err := w.unseen(beneath.Join(path, n.Name), err)
			told = told || one
			return err
		case e.Kind == slave.Dir:
			if e.Always || e.Record.Xtime > w.since {
				below = append(below, subdirectory{n.Name, e.Record.GFID})
			}
		case e.Record.Xtime > w.since:
			told = true
			return w.each(Diverged{Path: beneath.Join(path, n.Name), Size: e.Stat.Size, Xtime: e.Record.Xtime})
		}
		return nil
	})
	return below, told, err
}

// unseen is for what could not be looked at. What is gone by now has marked its directory, and is mounted on somebody's own word.
func (w *divergence) unseen(path string, err error) (told bool, _ error) {
	if source.Gone(err) || errors.Is(err, source.ErrMoved) || errors.Is(err, source.ErrCovered) {
		return false, nil
	}
	if errors.Is(err, source.ErrNotMaster) {
		return false, err
	}
	return true, w.each(Diverged{Path: path, Err: fmt.Errorf("read %q: %w", path, err)})
}
