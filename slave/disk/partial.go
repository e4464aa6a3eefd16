package disk

import (
	"context"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// take moves a complete upload into staging, for the operation that publishes it. ErrNeedContent:
// it is not complete, or is of another version, and the crawler sends the content with the
// operation. ErrInvalid: a call still writes to it.
func (us *uploads) take(it *item) error {
	op := it.op
	us.mu.Lock()
	defer us.mu.Unlock()
	u := us.open[op.Record.GFID]
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
	if err := us.sys.truncate(u.file, size); err != nil {
		return err
	}
	name, from := us.stagingName(), place{us.partial, op.Record.GFID.String()}
	if err := us.sys.rename(from, place{us.staging, name}, 0); err != nil {
		return err
	}
	us.shut(u)
	it.staged, it.file, it.bytes = name, true, size
	return nil
}

// giveBack keeps the content of an operation that failed for other reasons, so that it need not be sent again.
func (us *uploads) giveBack(it *item) {
	to := place{us.partial, it.op.Record.GFID.String()}
	if err := us.sys.rename(place{us.staging, it.staged}, to, unix.RENAME_NOREPLACE); err == nil {
		it.staged = ""
	}
}

// clean deletes what was received of contents that nobody sends any more, and was not touched since
// limit. Those that are open and unused are closed first; whoever goes on with one opens it again.
func (us *uploads) clean(ctx context.Context, limit int64) error {
	us.mu.Lock()
	defer us.mu.Unlock()
	for _, u := range us.open {
		if u.users == 0 {
			us.shut(u)
		}
	}
	return eachName(us.partial, func(name string) error {
		if err := us.live(ctx); err != nil {
			return err
		}
		st, err := us.partial.Stat(name)
		if err != nil || st.Ctime.Sec > limit || us.inUse(name) {
			return nil
		}
		if err := ignoreAbsent(us.sys.unlink(place{us.partial, name})); err != nil {
			us.log.Warn().Str("name", name).Err(err).Msg("left of an upload")
		}
		return nil
	})
}

// inUse tells whether a file in partial/ belongs to an upload that is open. uploads.mu is held.
func (us *uploads) inUse(name string) bool {
	name, _, _ = strings.Cut(name, ".")
	g, err := xtime.ParseGFID(name)
	return err == nil && us.open[g] != nil
}

// closeAll closes all, at the end of the session.
func (us *uploads) closeAll() {
	us.mu.Lock()
	defer us.mu.Unlock()
	for _, u := range us.open {
		us.shut(u)
	}
}

// evict deletes what was received of contents that nobody has gone on to send for a while. The next
// try begins anew. Only what has lain untouched for uploadRest goes, so an upload that is under way
// is never taken.
func (us *uploads) evict() (n int, bytes int64) {
	us.mu.Lock()
	defer us.mu.Unlock()
	before := time.Now().Add(-uploadRest).Unix()
	_ = eachName(us.partial, func(name string) error { // a name that cannot be listed stays
		st, err := us.partial.Stat(name)
		if err != nil || st.Ctime.Sec > before || us.inUse(name) || us.sys.unlink(place{us.partial, name}) != nil {
			return nil
		}
		n, bytes = n+1, bytes+int64(st.Blocks)*512
		return nil
	})
	return n, bytes
}

// holdOf is for a file that was counted before.
func (us *uploads) holdOf(f *beneath.Inode) (hold, error) {
	h := hold{used: us.sys.used}
	if h.used == nil {
		return h, nil
	}
	st, err := f.Stat()
	h.taken = charge(&st)
	h.wrote = h.taken
	return h, err
}
