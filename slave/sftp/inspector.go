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
type Inspector struct{ t *Tree }

var _ slave.Reader = (*Inspector)(nil)

// OpenInspector opens the slave at o.Path to be looked at. It may be nobody's; with Force also one that is not empty, or another
// master's. fs.ErrNotExist means that there is none.
func OpenInspector(ctx context.Context, o Options) (*Inspector, error) {
	o.Streams, o.Late, o.inspect = 1, 0, true
	t := newTree(o, leaseTimes{})
	if err := t.connect(ctx); err != nil {
		return nil, err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	heard := t.whileItAnswers(end)
	stop := context.AfterFunc(ctx, func() { t.hangUp() })
	err := t.inspect()
	heard()
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		t.hangUp()
		return nil, err
	}
	for _, c := range t.all() {
		t.parts.Go(func() { t.watch(c) })
	}
	return &Inspector{t: t}, nil
}

// inspect does what setup does, without a trace.
func (t *Tree) inspect() error {
	t.root = strings.TrimRight(t.o.Path, "/")
	path, err := t.first().Realpath(t.o.Path)
	if err == nil {
		t.root = strings.TrimRight(path, "/")
	}
	a, err := t.first().Lstat(t.abs(""))
	if err == nil && kindOf(a) != slave.Dir {
		err = unix.ENOTDIR
	}
	if lost := t.first().Err(); lost != nil { // which says nothing of the directory
		return fmt.Errorf("open slave %s: %w", t.name(), lost)
	}
	if err != nil {
		return fmt.Errorf("open slave %s: %w: %w", t.name(), slave.ErrNoVolume, err)
	}
	have, anew, err := t.checkOwner()
	if err != nil {
		return err
	}
	t.info.Version, t.info.Namespace, t.info.Path = t.o.Version, xtime.Trusted, t.abs("")
	if err := t.room(); err != nil && !errors.Is(err, unix.EROFS) { // to look at one that is read-only does no harm
		return err
	}
	t.info.Root = true // whatever an account may not keep on its files is kept in the index
	t.info.NoPlaces, t.feat.times, t.feat.latest = true, true, lastTime
	t.idx = index.New(readOnly{store{t}})
	if have == nil || anew || have.Master != t.o.Master {
		t.idx = index.New(nothing{})
		return nil
	}
	t.info.Filter = have.Filtered()
	if own, err := t.lstat(ownerFile); err == nil { // whoever wrote it
		t.feat.uid, t.feat.gid = own.UID, own.GID
	}
	return t.recover()
}

// recover has what the journals say may be wrong count for nothing, in memory alone.
func (t *Tree) recover() error {
	journals := make([][]byte, len(logNames))
	if err := t.readJournals(journals); err != nil {
		return t.unfit(err)
	}
	for _, text := range journals {
		if _, err := t.idx.Recover(text); err != nil {
			return t.unfit(err)
		}
	}
	return nil
}

// readOnly is the index of a slave that is only looked at.
type readOnly struct{ store }

// Stage is refused.
func (readOnly) Stage(string, []byte) (index.Staged, error) { return nil, slave.ErrInspected }

// Remove is refused.
func (readOnly) Remove(string) error { return slave.ErrInspected }

// nothing is the index of a slave that has none.
type nothing struct{ readOnly }

// Load finds nothing.
func (nothing) Load(string, func(int64)) ([]byte, error) { return nil, fs.ErrNotExist }

// Info tells what was found when the slave was opened.
func (a *Inspector) Info() slave.Info { return a.t.info }

// Survey is the Tree's.
func (a *Inspector) Survey(ctx context.Context, q []slave.Query) ([]slave.DirState, error) {
	return a.t.Survey(ctx, q)
}

// Hash is the Tree's.
func (a *Inspector) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	return a.t.Hash(ctx, paths)
}

// Count is the Tree's.
func (a *Inspector) Count(ctx context.Context, paths []string, limit int64) ([]int64, error) {
	return a.t.Count(ctx, paths, limit)
}

// Done and Err are the Tree's.
func (a *Inspector) Done() <-chan struct{} { return a.t.Done() }

// Err is why the session ended.
func (a *Inspector) Err() error { return a.t.Err() }

// Close ends the session. It is idempotent.
func (a *Inspector) Close() error {
	a.t.once.Do(func() {
		a.t.mu.Lock()
		a.t.closed = true
		a.t.mu.Unlock()
		a.t.fail(ErrClosed)
		a.t.hangUp()
		a.t.users.Wait()
		a.t.parts.Wait()
	})
	return nil
}
