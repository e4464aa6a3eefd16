package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
)

// PromoteOptions says which slave of this host to promote, or to demote.
type PromoteOptions struct {
	Path   string     // the slave's root
	Volume xtime.UUID // what it is once it is promoted
	By     string     // who wants it, for people
	// Force ends the session that has the slave open, and promotes what a first sync had not finished.
	Force bool
	// Lease is how long somebody who uses the slave by SFTP alone may say nothing before he is taken for dead; 0 is LeaseTime.
	Lease time.Duration
}

// LeaseTime is how long the lease of a slave by SFTP lasts, with room for a slow answer.
const LeaseTime = 20 * time.Second

// Promoted is what Promote did, or found.
type Promoted struct {
	slave.Promotion
	Session xtime.UUID // that filled the slave
	// Already: the slave was promoted before.
	Already bool
	// Partial counts files of which a part has arrived, and Parked entries that were taken out of the tree and are kept.
	Partial, Parked int
}

// Promote makes a slave the writable side, durably. All it changes is the owner's file, which is replaced as a whole: whenever it is
// interrupted, the slave is promoted or it is not, and it can be called again. Its errors wrap ErrNoVolume, ErrUnfit, ErrBusy, and
// ErrIncomplete.
func Promote(ctx context.Context, o PromoteOptions) (Promoted, error) { return promote(ctx, o, nil) }

// ErrIncomplete: no first sync has ended, so the slave has no moment of its master as a whole.
var ErrIncomplete = errors.New("the copy is not complete")

// errNoSlave: there is nothing to promote.
var errNoSlave = fmt.Errorf("%w: nobody replicates into this directory", slave.ErrNoVolume)

func promote(ctx context.Context, o PromoteOptions, hook func(op, name string) error) (out Promoted, err error) {
	w, have, err := openForHost(ctx, o, hook)
	if err != nil {
		return out, err
	}
	defer w.close()
	out = Promoted{Promotion: have.Promoted, Session: have.Session, Already: have.Promoted.Holds()}
	out.Partial, out.Parked = w.entries(apply.Partial), w.entries(apply.Parked)
	if out.Already {
		return out, nil
	}
	stime, err := w.rootStamp(have.Master)
	if err != nil {
		return out, fmt.Errorf("slave %s: %w: read the stamp of its root: %w", o.Path, slave.ErrUnfit, cause(err))
	}
	if stime == 0 && !o.Force {
		return out, fmt.Errorf("slave %s: %w: the first sync has not ended; --force promotes what is there", o.Path, ErrIncomplete)
	}
	next := have.Promote(slave.Promotion{At: time.Now().UTC().Truncate(time.Second), By: o.By, Stime: stime}, o.Volume)
	if err := w.saveOwner(&next); err != nil {
		return out, fmt.Errorf("promote slave %s: %w; see georep volume info for whether it is, and try again", o.Path, err)
	}
	out.Promotion = next.Promoted
	return out, nil
}

// ErrNotPromoted: there is nothing to give back.
var ErrNotPromoted = errors.New("it is not promoted")

// Demote gives a promoted slave back to its master, durably, and tells what held until then. From then on nothing that is on record
// there is believed, so the master compares all of it, and what was changed on the slave is overwritten. It is one step, as Promote is.
func Demote(ctx context.Context, o PromoteOptions) (slave.Promotion, error) {
	return demote(ctx, o, nil)
}

func demote(ctx context.Context, o PromoteOptions, hook func(op, name string) error) (was slave.Promotion, err error) {
	w, have, err := openForHost(ctx, o, hook)
	if err != nil {
		return was, err
	}
	defer w.close()
	if !have.Promoted.Holds() {
		return was, fmt.Errorf("slave %s: %w", o.Path, ErrNotPromoted)
	}
	next := have.Demote()
	if err := w.saveOwner(&next); err != nil {
		return was, fmt.Errorf("demote slave %s: %w; see georep volume info for whether it still is, and try again", o.Path, err)
	}
	return have.Promoted, nil
}

// hostWork is a slave that its own host has to itself.
type hostWork struct {
	*ownership
	leased bool
}

// openForHost takes the slave, so that no master writes meanwhile, and reads whose it is.
func openForHost(ctx context.Context, o PromoteOptions, hook func(op, name string) error) (*hostWork, *slave.Owner, error) {
	r := newReader(Options{Path: o.Path, Logger: zerolog.Nop()}, hook)
	w := &hostWork{ownership: &ownership{store: r.store}}
	have, err := w.take(ctx, o)
	if err != nil {
		w.close()
		return nil, nil, err
	}
	return w, have, nil
}

func (w *hostWork) take(ctx context.Context, o PromoteOptions) (*slave.Owner, error) {
	open := Options{Path: o.Path}
	if err := w.openRoot(open); err != nil {
		return nil, err
	}
	have, err := w.owned(o.Path)
	if err != nil {
		return nil, err
	}
	if w.base, err = w.dir.OpenDir(slave.Reserved); err != nil {
		return nil, fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, cause(err))
	}
	if o.Force {
		open.Session = have.Session // which ends an agent of that session
	}
	if err := w.takeLock(open); err != nil {
		if errors.Is(err, slave.ErrBusy) && !o.Force {
			err = fmt.Errorf("%w, on the master's host; --force ends it here", err)
		}
		return nil, err
	}
	if err := w.takeLease(ctx, o); err != nil {
		return nil, err
	}
	// Who had it may have changed this until now.
	return w.owned(o.Path)
}

// owned reads whose the slave is; it must be somebody's.
func (w *hostWork) owned(path string) (*slave.Owner, error) {
	have, err := w.readOwner()
	switch {
	case err != nil:
		return nil, fmt.Errorf("slave %s: read its owner: %w: %w", path, slave.ErrUnfit, cause(err))
	case have == nil:
		return nil, fmt.Errorf("slave %s: %w", path, errNoSlave)
	case have.Root != "" && !sameRoot(have.Root, w.rootMark):
		return nil, fmt.Errorf("slave %s: %w: it is a copy of a slave, which is elsewhere", path, slave.ErrUnfit)
	}
	return have, nil
}

// close lets go of the slave. What it changed is durable before.
func (w *hostWork) close() {
	if w.leased {
		// Else it would be found dead.
		_ = w.base.Unlink(apply.Lease)
	}
	w.unlock()
	if w.base != nil {
		w.base.Close()
	}
	if w.dir != nil {
		w.dir.Close()
	}
}

// rootStamp is the xtime that the root has on record; 0 for none.
func (w *hostWork) rootStamp(master xtime.UUID) (xtime.Time, error) {
	for _, ns := range []xtime.Namespace{xtime.Trusted, xtime.User} {
		stamp, err := w.dir.Getxattr("", xtime.NamesFor(ns, master).Xtime)
		switch {
		case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
			continue
		case err != nil:
			return 0, err
		}
		return xtime.Parse(stamp)
	}
	return 0, nil
}

// entries counts what is in a directory of .georep; what cannot be counted is 0, since it is for people.
func (w *hostWork) entries(area string) (n int) {
	d, err := w.base.OpenDir(area)
	if err != nil {
		return 0
	}
	defer d.Close()
	_ = d.List(func(beneath.Entry) error { n++; return nil })
	return n
}

// leasePoll is how often a lease is looked at.
const leasePoll = 250 * time.Millisecond

// takeLease takes the slave from whoever uses it by SFTP alone. There nobody sees the lock: who has the slave holds a lease, a file that
// he changes every few seconds, and ends where it is another's.
func (w *hostWork) takeLease(ctx context.Context, o PromoteOptions) error {
	if o.Lease == 0 {
		o.Lease = LeaseTime
	}
	before, err := w.lease()
	if err != nil || before == nil {
		return err
	}
	if !o.Force {
		alive, err := w.leaseChanges(ctx, before, o.Lease)
		if err != nil {
			return err
		}
		if alive {
			return fmt.Errorf("slave %s: %w by SFTP: stop that one first, on the master's host; --force ends it", o.Path, slave.ErrBusy)
		}
	}
	if err := w.sys.unlink(place{w.base, apply.Lease}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w.leased = true
	return w.holdLease(ctx, o)
}

// holdLease makes a lease of our own. Where one was taken from somebody who may live, he gets the time to see it.
func (w *hostWork) holdLease(ctx context.Context, o PromoteOptions) error {
	parts := 1
	if o.Force {
		parts = leaseParts
	}
	for i := range parts {
		if i > 0 {
			// A worker that comes meanwhile waits for as long as the lease goes on to change.
			was, err := w.lease()
			if err != nil {
				return err
			}
			if changed, err := w.leaseChanges(ctx, was, o.Lease/leaseParts); err != nil || changed || was == nil {
				return errors.Join(err, fmt.Errorf("slave %s: %w: another worker took its lease: stop that one first", o.Path, slave.ErrBusy))
			}
			if err := w.sys.unlink(place{w.base, apply.Lease}); err != nil {
				return err
			}
		}
		if err := w.writeNew(place{w.base, apply.Lease}, fmt.Appendf(nil, "promotion - %d 0 %d\n", os.Getpid(), i), true); err != nil {
			return err
		}
	}
	return nil
}

// leaseParts is how often we renew a lease while its former holder may live.
const leaseParts = 5

// lease is what the lease says; nil where there is none.
func (w *hostWork) lease() ([]byte, error) {
	text, err := readSmall(w.base, apply.Lease)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// leaseChanges watches the lease for that long, and tells whether anybody renewed it.
func (w *hostWork) leaseChanges(ctx context.Context, was []byte, long time.Duration) (bool, error) {
	tick := time.NewTicker(leasePoll)
	defer tick.Stop()
	end := time.NewTimer(long)
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-end.C:
			return false, nil
		case <-tick.C:
		}
		if now, err := w.lease(); err != nil || !bytes.Equal(now, was) {
			return now != nil, err
		}
	}
}
