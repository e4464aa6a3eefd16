package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/sftp/index"
)

// Inspector is a slave that is only looked at: it takes no lease, and writes nothing. A session may have the slave open meanwhile.
type Inspector struct {
	*reader
	own *ownership
}

var _ slave.Reader = (*Inspector)(nil)

// OpenInspector opens the slave at o.Path to be looked at. It may be nobody's; with Force also one that is not empty, or another
// master's. fs.ErrNotExist means that there is none.
func OpenInspector(ctx context.Context, o Options) (*Inspector, error) {
	o.Streams, o.Late, o.inspect = 1, 0, true
	a := newInspector(o)
	if err := a.connect(ctx); err != nil {
		return nil, err
	}
	if err := a.whileItAnswers(ctx, func(context.Context) error { return a.inspect() }); err != nil {
		a.hangUp()
		return nil, err
	}
	a.watchAll()
	return a, nil
}

func newInspector(o Options) *Inspector {
	rd := newReader(o)
	return &Inspector{reader: rd, own: &ownership{space: rd.space}}
}

// inspect does what setup does, without a trace.
func (a *Inspector) inspect() error {
	a.root = strings.TrimRight(a.o.Path, "/")
	path, err := a.first().Realpath(a.o.Path)
	if err == nil {
		a.root = strings.TrimRight(path, "/")
	}
	root, err := a.first().Lstat(a.abs(""))
	if err == nil && kindOf(root) != slave.Dir {
		err = unix.ENOTDIR
	}
	if lost := a.first().Err(); lost != nil { // which says nothing of the directory
		return fmt.Errorf("open slave %s: %w", a.name(), lost)
	}
	if err != nil {
		return fmt.Errorf("open slave %s: %w: %w", a.name(), slave.ErrNoVolume, err)
	}
	have, anew, err := a.own.checkOwner()
	if err != nil {
		return err
	}
	a.info.Version, a.info.Namespace, a.info.Path = a.o.Version, xtime.Trusted, a.abs("")
	if err := a.own.room(); err != nil && !errors.Is(err, unix.EROFS) { // to look at one that is read-only does no harm
		return err
	}
	a.info.Root = true // whatever an account may not keep on its files is kept in the index
	a.info.NoPlaces, a.feat.times, a.feat.latest = true, true, lastTime
	a.idx = index.New(readOnly{files{a.space}})
	if have == nil || anew || have.Master != a.o.Master {
		a.idx = index.New(nothing{})
		return nil
	}
	a.info.Filter, a.info.Promoted = have.Filtered(), have.Promoted.String()
	if own, err := a.lstat(ownerFile); err == nil { // whoever wrote it
		a.feat.uid, a.feat.gid = own.UID, own.GID
	}
	return a.recover()
}

// readOnly is the index of a slave that is only looked at.
type readOnly struct{ files }

// Stage is refused.
func (readOnly) Stage(string, []byte) (index.Staged, error) { return nil, slave.ErrInspected }

// Remove is refused.
func (readOnly) Remove(string) error { return slave.ErrInspected }

// nothing is the index of a slave that has none.
type nothing struct{ readOnly }

// Load finds nothing.
func (nothing) Load(string, func(int64)) ([]byte, error) { return nil, fs.ErrNotExist }

// Close ends the session. It is idempotent.
func (a *Inspector) Close() error {
	a.end(nil)
	return nil
}
