package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// features are what the server and its file system turned out to do.
type features struct {
	uid, gid uint32 // of what this account makes
	times    bool   // an mtime that is set is kept
	symlinks bool
}

// owner is what .georep/owner says, in TOML, as slave/disk has it.
type owner struct {
	Master  xtime.UUID `toml:"master"`
	Session xtime.UUID `toml:"session"`
	Created time.Time  `toml:"created"`
}

const ownerFile = base + "owner"

// setup does all of Open but connect. What can be refused without a trace is refused before anything is made in the root;
// the lease comes before all that another holder would mind.
func (t *Tree) setup(ctx context.Context) error {
	if err := t.openRoot(); err != nil {
		return err
	}
	if err := t.checkOwner(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{t.openBase, t.takeLease, t.openAreas} {
		if err := step(ctx); err != nil {
			return t.unfit(err)
		}
	}
	if err := t.checkOwner(); err != nil { // somebody else may have taken the root before the lease was ours
		return err
	}
	for _, step := range []func(context.Context) error{t.writeOwner, t.probe, t.openIndex, t.lookAround} {
		if err := step(ctx); err != nil {
			return t.unfit(err)
		}
	}
	return nil
}

// name is the slave in messages.
func (t *Tree) name() string { return t.o.Host + ":" + t.abs("") }

// unfit says that the slave cannot be used, and why.
func (t *Tree) unfit(err error) error {
	for _, clear := range []error{slave.ErrBusy, slave.ErrUnfit, slave.ErrNotEmpty, slave.ErrForeign, context.Canceled} {
		if errors.Is(err, clear) {
			return err
		}
	}
	if t.first().Err() != nil {
		return err
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
	}
	return ""
}

// openRoot finds the root, and makes it where it is missing.
func (t *Tree) openRoot() error {
	c := t.first()
	path, err := c.Realpath(t.o.Path)
	if err != nil {
		path = t.o.Path
	}
	for len(path) > 0 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	t.root = path
	a, err := c.Lstat(t.abs(""))
	if errors.Is(err, unix.ENOENT) {
		if merr := c.Mkdir(t.abs(""), wire.Attrs{Flags: wire.HasMode, Mode: 0o755}); merr != nil {
			return fmt.Errorf("make slave %s: %w: %w; make it, or one that exists is needed", t.name(), slave.ErrNoVolume, merr)
		}
		a, err = c.Lstat(t.abs(""))
	}
	switch {
	case err != nil:
		return fmt.Errorf("open slave %s: %w: %w", t.name(), slave.ErrNoVolume, err)
	case kindOf(a) != slave.Dir:
		return fmt.Errorf("open slave %s: %w: it is a %s, not a directory", t.name(), slave.ErrNoVolume, kindOf(a))
	}
	return nil
}

// checkOwner refuses a root that is another master's, or nobody's and in use, before anything is changed in it.
func (t *Tree) checkOwner() error {
	if t.o.Force {
		return nil
	}
	have, err := t.readOwner()
	switch {
	case err != nil:
		return fmt.Errorf("slave %s: read its owner: %w: %w", t.name(), slave.ErrUnfit, err)
	case have == nil:
		return t.checkEmpty()
	case have.Master != t.o.Master:
		return fmt.Errorf("slave %s: %w (volume %s): use another directory, or --force to take it over",
			t.name(), slave.ErrForeign, have.Master)
	}
	return nil
}

// readOwner gives nil where there is no owner on record yet.
func (t *Tree) readOwner() (*owner, error) {
	text, err := t.readSmall(ownerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	have := new(owner)
	if err := toml.Unmarshal(text, have); err != nil || have.Master.IsZero() {
		return nil, fmt.Errorf("%s is damaged; remove it, and use --force", ownerFile)
	}
	return have, nil
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

func (t *Tree) openBase(context.Context) error { return t.ensureDir(slave.Reserved) }

// openAreas makes what lies in .georep and clears what a cut left in staging.
func (t *Tree) openAreas(context.Context) error {
	g := new(errgroup.Group)
	for _, dir := range []string{stagingDir, partialDir, parkedDir, trashDir, indexDir} {
		g.Go(func() error { return t.ensureDir(dir) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	clear := new(errgroup.Group)
	clear.SetLimit(asksAtOnce)
	err := t.list(stagingDir, func(n wire.Name) error {
		clear.Go(func() error { return ignoreAbsent(t.any().Remove(t.abs(stagingDir + "/" + n.Name))) })
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

// writeOwner puts the owner on record, whole or not at all.
func (t *Tree) writeOwner(context.Context) error {
	have, err := t.readOwner()
	if err == nil && have != nil && have.Master == t.o.Master && have.Session == t.o.Session {
		return nil
	}
	if have != nil && have.Master != t.o.Master {
		if err := t.forgetIndex(); err != nil {
			return err
		}
	}
	text, err := toml.Marshal(owner{Master: t.o.Master, Session: t.o.Session, Created: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	return t.put(ownerFile, text)
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

// forgetIndex removes what another master's session has on record: its GFIDs mean nothing here.
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

// probeTime is an mtime that no new file has by itself.
const probeTime = 1_000_000_001

// probe learns what new files are like, and what the account can do.
func (t *Tree) probe(context.Context) error {
	c, path := t.any(), t.stagingName()
	if err := t.create(path, []byte("x")); err != nil {
		return err
	}
	err := c.Setstat(t.abs(path), wire.Attrs{Flags: wire.HasTimes, Atime: probeTime, Mtime: probeTime})
	a, lerr := t.lstat(path)
	if lerr != nil {
		return lerr
	}
	t.feat = features{uid: a.UID, gid: a.GID, times: err == nil && a.Mtime == probeTime}
	if err := c.Remove(t.abs(path)); err != nil {
		return err
	}
	link := t.stagingName()
	if c.Symlink("georep probe", t.abs(link)) == nil {
		target, err := c.Readlink(t.abs(link))
		t.feat.symlinks = err == nil && target == "georep probe"
		if err := ignoreAbsent(c.Remove(t.abs(link))); err != nil {
			return err
		}
	}
	if !t.feat.times {
		t.log.Warn().Str("slave", t.name()).Msg("the server does not keep mtimes: files changed by others are told by size alone")
	}
	return nil
}

// openIndex opens the index and drops from it what the journal says may be wrong.
func (t *Tree) openIndex(context.Context) error {
	t.idx = index.New(store{t})
	dropped := 0
	for _, name := range logNames {
		text, err := t.readSmall(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		n, err := t.idx.Recover(text)
		if err != nil {
			return err
		}
		dropped += n
	}
	if _, ok, err := t.idx.Get(index.Top, index.TopName); err != nil || !ok {
		if err = errors.Join(err, t.idx.Set(index.Top, index.TopName, index.Entry{Kind: slave.Dir, ID: index.Root})); err != nil {
			return err
		}
	}
	if err := t.idx.Flush(nil); err != nil {
		return err
	}
	if dropped > 0 {
		t.log.Info().Int("entries", dropped).Msg("the last session was cut off: these are compared again")
	}
	for i, name := range logNames {
		l, err := t.newLog(name)
		if err != nil {
			return err
		}
		t.logs[i] = l
	}
	t.journal = index.NewJournal(t.logs[0], t.logs[1])
	return t.mendTouched()
}

// lookAround fills in what Info tells.
func (t *Tree) lookAround(context.Context) error {
	t.info = slave.Info{Version: t.o.Version, Namespace: xtime.Trusted, Root: t.feat.uid == 0, Path: t.abs("")}
	if c := t.first(); c.CanSpace() {
		if s, err := c.Statvfs(t.abs("")); err == nil {
			t.info.FreeBytes = s.Free
			if s.ReadOnly {
				return unix.EROFS
			}
		}
	}
	for _, dir := range []string{parkedDir, partialDir} {
		if err := t.list(dir, func(wire.Name) error { t.info.Parked++; return nil }); err != nil {
			return err
		}
	}
	return t.idx.Each(index.Parked, func(name string, e index.Entry) bool {
		if e.Virtual {
			t.info.Parked++
		}
		if e.Kind == slave.Dir {
			t.within.add(name, e.ID)
		}
		return true
	})
}

// reason makes more of an error than the protocol tells: servers say "failure" when the disk is full.
func (t *Tree) reason(err error) error {
	var se *wire.StatusError
	if !errors.As(err, &se) || !se.Vague() {
		return err
	}
	c := t.first()
	if !c.CanSpace() {
		return err
	}
	s, serr := c.Statvfs(t.abs(""))
	switch {
	case serr != nil:
		return err
	case s.ReadOnly:
		return fmt.Errorf("%w (%w)", err, unix.EROFS)
	case s.Free < 1<<20 || s.Inodes == 0:
		return fmt.Errorf("%w (%w)", err, unix.ENOSPC)
	}
	return err
}
