package marker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/fanotify"
	"georep/marker/scan"
	"georep/marker/tree"
	"georep/marker/writers"
	"georep/marker/xtime"
)

// How it is known that a held file was written, though no event told:
//
//   - By descriptors and loop devices every write gives the file a new mtime. Times, size and ctime are compared with those
//     of the look before, by inequality. What a mark covers that came after the last write is not marked once more; so a
//     file that is written in the ordinary way, with events, costs nothing here.
//   - Through a mapping only the first write to a page since it was last flushed does. So a look flushes the file, after
//     it has read its times: whatever is written afterwards gives it others.
//   - tmpfs, and whatever else is not known to be of this kind, gives no new times: there the content is hashed.
//
// Flushing and hashing are done at most every half max-delay, and seldom enough to cost little.

// placeOf is an entry as events name it.
func placeOf(dir beneath.HandleKey, name string) fanotify.Place {
	return fanotify.Place{Dir: dir, Name: name}
}

// failed has a file looked at as if it had changed, next time.
func (e *held) failed() { e.sure, e.primed, e.gone = false, false, false }

// meet looks at a file that is held. A file may be in the list several times: by several
// descriptors, or mapped and open. It is looked at once. One that cannot be opened any more has
// just been closed, and leave has the last look at it.
func (h *heldFiles) meet(ctx context.Context, f *writers.File) {
	pin, err := h.pin(f)
	if err != nil {
		if !isGone(err) && !errors.Is(err, unix.EXDEV) {
			h.Often.Debug().Err(err).Msg("a file that is held open could not be looked at")
		}
		return
	}
	defer pin.Close()
	st, err := pin.Stat("")
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	k := tree.InodeOf(&st)
	e := h.files[k]
	if e == nil {
		e = &held{inode: k, at: h.last}
		e.key, _ = pin.Key("") // where there are no handles it is not needed
		h.files[k] = e
	}
	if e.round == h.round {
		return
	}
	e.round, e.gone = h.round, false
	if f.Mapped && !e.mapped {
		e.primed = false
	}
	e.mapped = f.Mapped || e.mapped
	h.check(ctx, e, pin, &st)
	e.mapped = f.Mapped
}

// pin holds on to the file. The link below /proc leads to the very file, also where it has no name;
// a loop device gives only a path. The result is the caller's to close. An error is about that file
// alone.
func (h *heldFiles) pin(f *writers.File) (*beneath.Dir, error) {
	if f.Link == "" {
		path := h.Root.Below(f.Path)
		if path == "" {
			return nil, unix.ENOENT
		}
		return h.pinPath(path)
	}
	fd, err := unix.Open(f.Link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.Link, err)
	}
	pin := beneath.FromFd(fd, false)
	pin.Hook(h.o.hook)
	return pin, nil
}

// pinPath opens a path below the root, without following links, as an inode to look at.
func (h *heldFiles) pinPath(path string) (*beneath.Dir, error) {
	dir, name := beneath.Split(path)
	d, err := h.Root.OpenPath(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Pin(name)
}

// leave looks for the last time at a file that nobody holds any more. Where it is not under the name that it had, what took
// that away is an event.
func (h *heldFiles) leave(ctx context.Context, e *held) {
	e.gone = true
	pin, err := h.pinAgain(e)
	if err != nil {
		e.gone = isGone(err) || errors.Is(err, errOtherFile)
		return
	}
	defer pin.Close()
	st, err := pin.Stat("")
	if err != nil {
		e.gone = false
		return
	}
	h.check(ctx, e, pin, &st)
}

// pinAgain finds a file again that is not held any more. First by the path where it was, if the
// same inode is still there, then by handle. errOtherFile: neither leads to it.
func (h *heldFiles) pinAgain(e *held) (*beneath.Dir, error) {
	err := errOtherFile
	if e.path != "" {
		var pin *beneath.Dir
		if pin, err = h.pinPath(e.path); err == nil {
			st, statErr := pin.Stat("")
			if statErr == nil && e.inode == tree.InodeOf(&st) {
				return pin, nil
			}
			pin.Close()
			err = errors.Join(statErr, errOtherFile)
		}
	}
	if e.key == "" {
		return nil, err
	}
	pin, keyErr := h.Root.PinKey(e.key)
	if tree.IsAny(keyErr, unix.EPERM, unix.EOPNOTSUPP) {
		return nil, err
	}
	return pin, keyErr
}

// check compares a file with what it was, and has it marked where it changed. A mapped file is
// flushed at most every half max-delay, unless the look leaves nothing for later or it is the last
// one. Where a scan was asked for its names, nothing is done before that has answered.
func (h *heldFiles) check(ctx context.Context, e *held, pin *beneath.Dir, st *beneath.Stat) {
	if e.sought != nil && !h.answered(e, st) {
		e.gone = false
		return
	}
	if e.mapped && e.primed && !h.all && !e.gone && time.Now().Before(e.next) {
		return
	}
	changed := h.changed(e, pin, st)
	if !changed && !e.mapped {
		h.marked(e, st)
		return
	}
	switch h.locate(e, pin, st) {
	case nowhere:
		h.marked(e, st)
		return
	case unknown:
		h.ask(e, st)
		return
	}
	if e.mapped {
		written, err := h.flush(ctx, e, st)
		if err != nil {
			h.Often.Warn().Err(err).Msg("a mapped file could not be looked at")
			e.failed()
			return
		}
		changed = changed || written
	}
	if !changed {
		h.marked(e, st)
		return
	}
	h.marks = append(h.marks, due{e, *st, e.path})
}

// marked notes that all is marked that was written to a file before this look.
func (h *heldFiles) marked(e *held, st *beneath.Stat) {
	mtime := time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec))
	e.st, e.known, e.at = *st, true, h.at
	e.sure = h.at.Wall.Sub(mtime).Abs() >= scan.Settled
}

// changed tells whether times and size say that the file was written since the look before, and no
// mark covers that. In doubt it says yes: that costs a mark and a comparison, and no would be a
// change that is never shipped.
func (h *heldFiles) changed(e *held, pin *beneath.Dir, st *beneath.Stat) bool {
	same := e.known && e.sure && st.Mtime == e.st.Mtime && st.Size == e.st.Size
	if same && (st.Ctime == e.st.Ctime || h.scans.Own.Has(st)) {
		return false
	}
	x, err := pin.Xtime("", &h.Names)
	if err != nil {
		return true
	}
	ctime := time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec))
	if same && ctime.After(x.Time().Add(-scan.Settled)) && !ctime.After(x.Time().Add(scan.MarkLag)) {
		return false // that is the mark itself
	}
	if e.mapped || h.remote {
		return true
	}
	mtime := time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec))
	// An mtime from before the look at which it was another was set by somebody, or by a clock that was set back.
	if e.known && mtime.Before(h.last.Wall.Add(-scan.Settled)) {
		return true
	}
	return !covers(max(x, h.o.VolumeMark), mtime.Add(h.tick), ctime)
}

// covers tells whether a mark came after a write at mtime, and gave the file its ctime.
func covers(x xtime.Time, mtime, ctime time.Time) bool {
	t := x.Time()
	return t.After(mtime) && !t.After(time.Now()) && !ctime.After(t.Add(scan.MarkLag))
}

// flush writes a mapped file to its device, so that what is written from now on gives it other times, and looks at its
// content where times do not tell. It tells whether it may have been written since it was flushed before.
func (h *heldFiles) flush(ctx context.Context, e *held, st *beneath.Stat) (written bool, err error) {
	began := time.Now()
	dir, name := beneath.Split(e.path)
	d, err := h.Root.OpenPath(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	f, err := d.OpenQuietly(name)
	if tree.IsAny(err, unix.EACCES, unix.EPERM) {
		return false, nil // whom it is not for to read, nobody ships it for
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	now, err := f.Stat()
	if err != nil || now.Ino != st.Ino || now.Dev != st.Dev {
		return false, errors.Join(err, errOtherFile)
	}
	if err := f.Flush(); err != nil {
		return false, err
	}
	sum := e.sum
	if !h.tell {
		if _, sum, err = f.Digest(&now, ctx.Err); err != nil {
			return false, err
		}
	}
	written = !e.primed || sum != e.sum
	e.primed, e.sum = true, sum
	e.next = time.Now().Add(max(h.o.MaxDelay/2, flushRatio*time.Since(began)))
	return written, nil
}

// whether a file lies in the volume.
type whether int

const (
	here    whether = iota // under held.path
	nowhere                // it has no name there
	unknown                // it may have one that the kernel does not tell
)

// locate looks for a name of the file in the volume. The path is advice and is checked. "unknown"
// is for an inode with further names of which the kernel remembers none: only a scan can tell
// whether one of them is in the volume.
func (h *heldFiles) locate(e *held, pin *beneath.Dir, st *beneath.Stat) whether {
	if e.path != "" && h.isAt(e, e.path) {
		return here
	}
	if st.Nlink == 0 {
		return nowhere
	}
	outside := false
	for _, p := range []*beneath.Dir{pin, h.again(e)} {
		if p == nil {
			continue
		}
		if path := h.Root.LastPathOf(p); path != "" && h.isAt(e, path) {
			e.path = path
			outside = false
		} else {
			outside = outside || path == "" && p.LastPathHolds()
		}
		if p != pin {
			p.Close()
		}
	}
	switch {
	case e.path != "" && h.isAt(e, e.path):
		return here
	case outside && st.Nlink == 1, e.elsewhere == st.Nlink:
		return nowhere
	}
	return unknown
}

// again is the file through the volume's own mount, whose names are those of the volume; nil where that cannot be.
func (h *heldFiles) again(e *held) *beneath.Dir {
	if e.key == "" {
		return nil
	}
	p, err := h.Root.PinKey(e.key)
	if err != nil {
		return nil
	}
	return p
}

// isAt tells whether the file lies there.
func (h *heldFiles) isAt(e *held, path string) bool {
	dir, name := beneath.Split(path)
	d, err := h.Root.OpenPath(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	st, err := d.Stat(name)
	return err == nil && e.inode == tree.InodeOf(&st) && st.MountID == h.RootStat.MountID
}

// ask has a scan look for the file. The heartbeat waits for it.
func (h *heldFiles) ask(e *held, st *beneath.Stat) {
	at := h.at
	e.st, e.known, e.sure, e.sought, e.gone = *st, true, true, &at, false
	h.scans.Sought.Ask(e.inode)
	h.scanner.wakeUp()
}

// answered tells whether the scan is over. Whatever name it found is marked.
func (h *heldFiles) answered(e *held, st *beneath.Stat) bool {
	path, met, done := h.scans.Sought.Answer(e.inode)
	if !done {
		return false
	}
	e.at, e.sought, e.elsewhere = *e.sought, nil, 0
	if met {
		e.path = path
	} else {
		e.elsewhere = st.Nlink
	}
	return true
}
