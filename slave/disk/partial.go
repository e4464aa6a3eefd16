package disk

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// takeUpload moves a complete upload into staging, for the operation that publishes it.
func (t *Tree) takeUpload(it *item) error {
	op := it.op
	t.uploads.mu.Lock()
	defer t.uploads.mu.Unlock()
	u := t.uploads.open[op.Record.GFID]
	if u == nil || u.spec.Version != op.Version {
		return slave.ErrNeedContent
	}
	if u.users > 0 {
		return slave.ErrInvalid
	}
	size := u.spec.Size
	if size > 0 && (len(u.have) != 1 || u.have[0] != slave.Range{End: size}) {
		return slave.ErrNeedContent
	}
	if err := t.sys.truncate(u.file, size); err != nil {
		return err
	}
	name, from := t.stagingName(), place{t.partial, op.Record.GFID.String()}
	if err := t.sys.rename(from, place{t.staging, name}, 0); err != nil {
		return err
	}
	t.closeUpload(u)
	it.staged, it.file, it.bytes = name, true, size
	return nil
}

// giveBack keeps the content of an operation that failed for other reasons, so that it need not be sent again.
func (t *Tree) giveBack(it *item) {
	to := place{t.partial, it.op.Record.GFID.String()}
	if err := t.sys.rename(place{t.staging, it.staged}, to, unix.RENAME_NOREPLACE); err == nil {
		it.staged = ""
	}
}

// published tells whether an operation that comes again has been applied before.
func (t *Tree) published(op *slave.Op) bool {
	n, ok := t.finder.verify(op.Record.GFID, op.Path)
	return ok && op.Record.Xtime != 0 && n.rec == op.Record
}

// stageUploaded makes what was sent ahead complete, with meta and records.
func (t *Tree) stageUploaded(it *item) error {
	err := t.takeUpload(it)
	if errors.Is(err, slave.ErrNeedContent) && t.published(it.op) {
		it.done = true
		return nil
	}
	if err != nil {
		return err
	}
	f, err := t.staging.OpenWrite(it.staged)
	if err == nil {
		defer f.Close()
		c := &change{t: t, inode: f, kind: slave.File, meta: &it.op.Meta, record: it.op.Record, stamps: true}
		var st beneath.Stat
		if st, err = f.Stat(); err == nil {
			c.now, err = shapeOf(f, st)
		}
		var done func()
		if err == nil {
			done, err = t.sys.used.grows(f, c.meta, &st)
		}
		if err == nil {
			it.res.Lost, err = c.apply()
			done()
		}
	}
	if err != nil {
		t.giveBack(it)
		return err
	}
	// The journal goes last: without its content it means nothing.
	for _, suffix := range []string{journalSuffix, basisSuffix} {
		if err := ignoreAbsent(t.sys.unlink(place{t.partial, it.op.Record.GFID.String() + suffix})); err != nil {
			t.log.Warn().Str("gfid", it.op.Record.GFID.String()).Err(err).Msg("left of an upload")
		}
	}
	return nil
}

// cleanUploads deletes what was received of contents that nobody sends any more, and was not touched since limit.
func (t *Tree) cleanUploads(ctx context.Context, limit int64) error {
	t.uploads.mu.Lock()
	defer t.uploads.mu.Unlock()
	for _, u := range t.uploads.open {
		if u.users == 0 {
			t.closeUpload(u)
		}
	}
	return eachName(t.partial, func(name string) error {
		if err := t.live(ctx); err != nil {
			return err
		}
		st, err := t.partial.Stat(name)
		if err != nil || st.Ctime.Sec > limit || t.uploadInUse(name) {
			return nil
		}
		if err := ignoreAbsent(t.sys.unlink(place{t.partial, name})); err != nil {
			t.log.Warn().Str("name", name).Err(err).Msg("left of an upload")
		}
		return nil
	})
}

// uploadInUse tells whether a file in partial/ belongs to an upload that is open. uploads.mu is held.
func (t *Tree) uploadInUse(name string) bool {
	name, _, _ = strings.Cut(name, ".")
	g, err := xtime.ParseGFID(name)
	return err == nil && t.uploads.open[g] != nil
}

// closeUploads closes all, at the end of the session.
func (t *Tree) closeUploads() {
	t.uploads.mu.Lock()
	defer t.uploads.mu.Unlock()
	for _, u := range t.uploads.open {
		t.closeUpload(u)
	}
}
