package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// features are what the server and its file system turned out to do.
type features struct {
	// uid and gid are found on a file that the account made; SFTP has no other way to ask.
	uid, gid uint32 // of what this account makes
	times    bool   // an mtime that is set is kept
	latest   uint32 // mtime that is kept
	// symlinks says that links can be made, and lead where they were told to.
	symlinks bool
}

// ownerFile says whose the slave is; a root without it is nobody's.
const ownerFile = base + apply.Owner

// indexOf names the slave that the index is of, and goes where that goes.
const indexOf = indexDir + "/slave"

// setup does all of Open but connect, as much of it as it can at the same time. What can be refused without a trace is refused
// before anything is made in the root; the lease comes before all that another holder would mind.
func (t *Tree) setup(ctx context.Context) error {
	if err := t.openRoot(); err != nil {
		return err
	}
	have, _, err := t.checkOwner()
	if err != nil {
		return err
	}
	if have == nil {
		if err := t.ensureDir(slave.Reserved); err != nil {
			return t.unfit(err)
		}
	}
	if err := together(func() error { return t.takeLease(ctx) }, t.makeAreas); err != nil {
		return t.unfit(err)
	}
	var inPark []string
	look := func() error { return t.lookAround(&inPark) }
	err = together(t.openBooks, t.clearStaging, t.probeFile, t.probeLink, look)
	if err == nil {
		err = t.mendTouched() // which has to know what times the server keeps
	}
	if err == nil {
		err = t.noteLeftover(inPark)
	}
	if err != nil {
		return t.unfit(err)
	}
	t.info.Version, t.info.Namespace, t.info.Root, t.info.Path = t.o.Version, xtime.Trusted, t.feat.uid == 0, t.abs("")
	t.info.Links, t.info.NoPlaces, t.info.ReadsBack, t.info.Parked = t.first().CanLink(), true, true, t.parked.Load()
	return nil
}

// together does several things at once and gives the first error.
func together(parts ...func() error) error {
	g := new(errgroup.Group)
	for _, part := range parts {
		g.Go(part)
	}
	return g.Wait()
}

// name is the slave in messages.
func (t *Tree) name() string { return t.o.Host + ":" + t.abs("") }

// unfit says that the slave cannot be used, and why.
func (t *Tree) unfit(err error) error {
	for _, clear := range []error{slave.ErrBusy, slave.ErrUnfit, slave.ErrNotEmpty, slave.ErrForeign, slave.ErrPromoted, slave.ErrAbsent,
		context.Canceled} {
		if errors.Is(err, clear) {
			return err
		}
	}
	for _, c := range t.all() {
		if c.Err() != nil {
			return err // of the connection, which says nothing of the slave
		}
	}
	return fmt.Errorf("slave %s: %w: %w%s", t.name(), slave.ErrUnfit, t.reason(err), t.hint(err))
}

// hint tells what the operator can do about an error.
func (t *Tree) hint(err error) string {
	switch slave.Errno(t.reason(err)) {
	case unix.EACCES:
		return "; this account must be allowed to write there"
	case unix.EROFS:
		return "; it is read-only"
	case unix.ENOSPC, unix.EDQUOT:
		return "; make room there"
	}
	return ""
}

// openRoot finds the root, and makes it where it is missing.
func (t *Tree) openRoot() error {
	c := t.first()
	given := t.o.Path
	for len(given) > 0 && given[len(given)-1] == '/' {
		given = given[:len(given)-1]
	}
	t.root = given
	var a wire.Attrs
	var path string
	var err, perr error
	_ = together(func() error { a, err = c.Lstat(t.abs("")); return nil },
		func() error { path, perr = c.Realpath(t.o.Path); return nil }) // never fails
	if perr == nil && path != t.abs("") {
		t.root = strings.TrimRight(path, "/")
		a, err = c.Lstat(t.abs(""))
	}
	if lost := c.Err(); lost != nil { // which says nothing of the directory
		return fmt.Errorf("open slave %s: %w", t.name(), lost)
	}
	filled := t.o.Proof.Filled && !t.o.Force
	if filled && (err != nil || kindOf(a) != slave.Dir) {
		if err == nil {
			err = unix.ENOTDIR
		}
		return fmt.Errorf("slave %s: %w", t.name(), slave.Gone(err))
	}
	if errors.Is(err, unix.ENOENT) {
		if merr := c.Mkdir(t.abs(""), wire.Attrs{Flags: wire.HasMode, Mode: 0o755}); merr != nil {
			if lost := c.Err(); lost != nil {
				return fmt.Errorf("make slave %s: %w", t.name(), lost)
			}
			return fmt.Errorf("make slave %s: %w: %w; only the last directory of a path is made: check the path, or make the one above", t.name(), slave.ErrNoVolume, merr)
		}
		a, err = c.Lstat(t.abs(""))
	}
	switch {
	case c.Err() != nil:
		return fmt.Errorf("open slave %s: %w", t.name(), c.Err())
	case err != nil:
		return fmt.Errorf("open slave %s: %w: %w", t.name(), slave.ErrNoVolume, err)
	case kindOf(a) != slave.Dir:
		return fmt.Errorf("open slave %s: %w: it is a %s, not a directory", t.name(), slave.ErrNoVolume, kindOf(a))
	}
	return nil
}

// checkOwner refuses a root that is another master's, or another slave, or nobody's and in use, before anything is changed
// in it. It gives the owner on record, nil where there is none, and whether the slave is to be taken as if nobody had ever
// filled it.
func (t *Tree) checkOwner() (have *slave.Owner, anew bool, err error) {
	var empty error
	_ = together(func() error { have, err = t.readOwner(); return nil }, func() error { // never fails
		if !t.o.Force {
			empty = t.checkEmpty()
		}
		return nil
	})
	if err != nil && !t.o.Force {
		return nil, false, fmt.Errorf("slave %s: read its owner: %w: %w", t.name(), slave.ErrUnfit, err)
	}
	// The protocol tells nothing of a directory that a copy of it does not have.
	anew, err = t.claim().Admit(have, func(string) bool { return true })
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("slave %s: %w", t.name(), err)
	case have == nil:
		return nil, anew, empty
	}
	return have, anew, nil
}

// claim is by what right the slave is opened.
func (t *Tree) claim() *slave.Claim {
	return &slave.Claim{Master: t.o.Master, Session: t.o.Session, Proof: t.o.Proof, Force: t.o.Force, Inspect: t.o.inspect}
}

// readOwner gives nil where there is no owner on record yet.
func (t *Tree) readOwner() (*slave.Owner, error) {
	text, err := t.readSmall(ownerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return slave.ParseOwner(text)
}

// checkEmpty refuses a root with anything in it but what a new file system has.
func (t *Tree) checkEmpty() error {
	err := t.list("", func(n wire.Name) error {
		if n.Name == slave.Reserved || n.Name == "lost+found" {
			return nil
		}
		return fmt.Errorf("slave %s: %w (%q is there) and has no owner: use an empty directory, or --force to take it",
			t.name(), slave.ErrNotEmpty, n.Name)
	})
	if err != nil && !errors.Is(err, slave.ErrNotEmpty) {
		return fmt.Errorf("slave %s: %w: %w", t.name(), slave.ErrUnfit, err)
	}
	return err
}

// makeAreas makes what lies in .georep.
func (t *Tree) makeAreas() error {
	g := new(errgroup.Group)
	for _, dir := range []string{stagingDir, partialDir, parkedDir, trashDir, indexDir} {
		g.Go(func() error { return t.ensureDir(dir) })
	}
	return g.Wait()
}

// clearStaging removes what a cut left there, and nothing of this session.
func (t *Tree) clearStaging() error {
	clear := new(errgroup.Group)
	clear.SetLimit(asksAtOnce)
	err := t.list(stagingDir, func(n wire.Name) error {
		if !strings.HasPrefix(n.Name, t.prefix) {
			clear.Go(func() error { return ignoreAbsent(t.any().Remove(t.abs(stagingDir + "/" + n.Name))) })
		}
		return nil
	})
	return errors.Join(err, clear.Wait())
}

// ignoreAbsent makes removing what is gone a success.
func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// writeOwner puts the owner on record, whole or not at all, and before it in the index whose that is.
func (t *Tree) writeOwner(next *slave.Owner) error {
	text, err := next.Text()
	if err == nil {
		err = t.put(indexOf, []byte(next.Slave.String()+"\n"))
	}
	if err != nil {
		return err
	}
	return t.put(ownerFile, text)
}

// filterOp puts the session's filter on record. A session sends one such operation at a time.
func (t *Tree) filterOp(op *slave.Op) error {
	next := t.owner
	next.SetFilter(op.Record)
	err := t.writeOwner(&next)
	if err == nil {
		t.owner = next
	}
	return err
}

// put replaces one of our own files, whole.
func (t *Tree) put(path string, text []byte) error {
	temp := t.stagingName()
	err := t.create(temp, text)
	if err == nil {
		err = t.replace(temp, path, path+asideSuffix)
	}
	if err != nil {
		_ = t.any().Remove(t.abs(temp))
	}
	return err
}

// forgetIndex removes what is on record of another slave, or another master: it vouches for nothing here.
func (t *Tree) forgetIndex() error {
	to := trashDir + "/" + t.unique()
	if err := t.rename(indexDir, to); err != nil {
		return err
	}
	for _, name := range logNames {
		if err := ignoreAbsent(t.any().Remove(t.abs(name))); err != nil {
			return err
		}
	}
	return t.ensureDir(indexDir)
}

// Mtimes that no new file has by itself: the latest that SFTP can tell, and what file systems make of it that know no later
// time than 2038.
const (
	lastTime  = math.MaxUint32
	lastShort = math.MaxInt32
)

// probeFile learns what new files are like.
func (t *Tree) probeFile() error {
	c, path := t.any(), t.stagingName()
	if err := t.create(path, []byte("x")); err != nil {
		return err
	}
	err := c.Setstat(t.abs(path), wire.Attrs{Flags: wire.HasTimes, Atime: lastTime, Mtime: lastTime})
	a, lerr := t.lstat(path)
	if lerr != nil {
		return lerr
	}
	t.feat.uid, t.feat.gid, t.feat.latest = a.UID, a.GID, lastTime
	t.feat.times = err == nil && (a.Mtime == lastTime || a.Mtime == lastShort)
	if t.feat.times {
		t.feat.latest = a.Mtime
	}
	if !t.feat.times {
		t.log.Warn().Str("slave", t.name()).Msg("the server does not keep mtimes: files changed by others are told by size alone")
	}
	return c.Remove(t.abs(path))
}

// probeLink learns whether the server makes symbolic links.
func (t *Tree) probeLink() error {
	c, link := t.any(), t.stagingName()
	if c.Symlink("georep probe", t.abs(link)) != nil {
		return nil
	}
	target, err := c.Readlink(t.abs(link))
	t.feat.symlinks = err == nil && target == "georep probe"
	return ignoreAbsent(c.Remove(t.abs(link)))
}

// openBooks makes sure once more whose the slave is, for somebody else may have taken it before the lease was ours, puts the
// owner on record, opens the index and drops from it what the journal says may be wrong. An index that is not this slave's,
// or that stands where nobody owns the slave, counts for nothing (invariant 16).
func (t *Tree) openBooks() error {
	t.idx = index.New(store{t})
	var have *slave.Owner
	var anew bool
	var of []byte
	journals := make([][]byte, len(logNames))
	read := func() (err error) { have, anew, err = t.checkOwner(); return err }
	readOf := func() (err error) { of, err = t.readSmall(indexOf); return ignoreAbsent(err) }
	if err := together(read, readOf, func() error { return t.readJournals(journals) }, t.preload); err != nil {
		return err
	}
	next, differs := t.claim().Next(have, anew, "")
	t.info.Slave, t.info.Filter, t.owner = next.Slave, next.Filtered(), next
	unnamed := have != nil && have.Slave.IsZero() // an earlier version's
	if anew || !unnamed && strings.TrimSpace(string(of)) != next.Slave.String() {
		if err := t.forgetIndex(); err != nil {
			return err
		}
		t.idx, journals, differs = index.New(store{t}), nil, true
	}
	own := func() error { return nil }
	if differs {
		own = func() error { return t.writeOwner(&next) }
	}
	return together(own, func() error { return t.openIndex(journals) })
}

// readJournals reads both; one that is not there is empty.
func (t *Tree) readJournals(texts [][]byte) error {
	g := new(errgroup.Group)
	for i, name := range logNames {
		g.Go(func() (err error) {
			texts[i], err = t.readSmall(name)
			return ignoreAbsent(err)
		})
	}
	return g.Wait()
}

// preload reads the parts of the index that every session needs.
func (t *Tree) preload() error {
	g := new(errgroup.Group)
	for _, id := range []index.ID{index.Top, index.Root, index.Parked, index.Links, index.Pending, index.Touched} {
		g.Go(func() error { return t.idx.Preload(id) })
	}
	return g.Wait()
}

// openIndex drops from the index what the journals say may be wrong, and begins new ones.
func (t *Tree) openIndex(journals [][]byte) error {
	dropped, err := t.idx.Recover(journals...)
	if err != nil {
		return err
	}
	if dropped > 0 {
		if err := t.idx.Flush(nil); err != nil {
			return err
		}
		t.log.Info().Int("entries", dropped).Msg("the last session was cut off: these are compared again")
	}
	_, ok, err := t.idx.Get(index.Top, index.TopName)
	if err == nil && !ok {
		err = t.idx.Set(index.Top, index.TopName, index.Entry{Kind: slave.Dir, ID: index.Root})
	}
	if err != nil {
		return err
	}
	if err := t.beginJournal(journals); err != nil {
		return err
	}
	return t.idx.Each(index.Parked, func(name string, e index.Entry) bool {
		if e.Virtual {
			t.parked.Add(1)
		}
		if e.Kind == slave.Dir {
			t.within.add(name, e.ID)
		}
		return true
	})
}

// lookAround learns how much room there is, and what is parked.
func (t *Tree) lookAround(inPark *[]string) error {
	total, size := int64(0), 0
	parked := func() error {
		return t.list(parkedDir, func(n wire.Name) error {
			total++
			if size += len(n.Name); size <= maxParkText {
				*inPark = append(*inPark, n.Name)
			} else {
				t.leftMany.Store(true)
			}
			return nil
		})
	}
	partial := func() error { return t.list(partialDir, func(wire.Name) error { t.parked.Add(1); return nil }) }
	err := together(t.room, parked, partial)
	t.parked.Add(total)
	return err
}

// maxParkText bounds the names in the park that are kept in memory while a slave is opened: those of some 100,000 entries.
const maxParkText = 4 << 20

// isLeft tells whether there is something in the park under a name that is not on record.
func (t *Tree) isLeft(name string) (bool, error) {
	if _, left := t.leftover.Load(name); left || !t.leftMany.Load() {
		return left, nil
	}
	_, err := t.lstat(parkedDir + "/" + name)
	if noFile(err) {
		return false, nil
	}
	return err == nil, err
}

// noteLeftover notes which of the names in the park are not on record: a cut came between.
func (t *Tree) noteLeftover(inPark []string) error {
	for _, name := range inPark {
		_, ok, err := t.idx.Get(index.Parked, name)
		if err != nil {
			return err
		}
		if !ok {
			t.leftover.Store(name, struct{}{})
		}
	}
	return nil
}

// room learns the free space where the server tells it, and refuses a read-only slave.
func (t *Tree) room() error {
	c := t.first()
	if !c.CanSpace() {
		return nil
	}
	s, err := c.Statvfs(t.abs(""))
	if err != nil {
		return nil // then it is not known
	}
	t.info.FreeBytes, t.info.FreeFiles = s.Free, max(s.Inodes, 0)
	if s.ReadOnly {
		return unix.EROFS
	}
	return nil
}
