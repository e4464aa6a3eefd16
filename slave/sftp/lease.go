package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/wire"
)

// The protocol has no locks, so whoever uses a slave holds a lease: a file that it made, and that it changes every
// leaseStep. One that has not changed for leaseTime is dead. A worker that was killed on this host is known to be dead at
// once, by its process id.
const (
	// leaseFile says who holds the slave. It is made exclusively, which is all that the protocol has to tell two of
	// them apart.
	leaseFile = base + apply.Lease
	// leaseTime is more than three steps, so that a slow answer or two do not cost a living holder the slave.
	leaseStep = 5 * time.Second
	leaseTime = 18 * time.Second
	leasePoll = time.Second
)

// leaseTimes are these; tests have no time to wait.
type leaseTimes struct{ step, dead, poll time.Duration }

// holder is what a lease says of who made it.
type holder struct {
	// token is the holder's own, chosen at random; boot, pid and start tell whether a holder on this host still
	// lives.
	token  string
	boot   string
	pid    int
	start  uint64 // of the process, in ticks since the boot
	number uint64 // of changes
}

// text and parseHolder are the file's form.
func (h holder) text() []byte {
	return fmt.Appendf(nil, "%s %s %d %d %d\n", h.token, h.boot, h.pid, h.start, h.number)
}

func parseHolder(text []byte) (h holder) {
	_, _ = fmt.Sscanf(string(text), "%s %s %d %d %d", &h.token, &h.boot, &h.pid, &h.start, &h.number) // else it is nobody's
	return h
}

// self is this process as a holder.
func (own *ownership) self(number uint64) holder {
	return holder{token: own.prefix, boot: bootID(), pid: os.Getpid(), start: startTime(os.Getpid()), number: number}
}

// bootID tells this run of this kernel from every other.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "-"
	}
	return strings.TrimSpace(string(b))
}

// startTime is when a process began; 0 where there is none.
func startTime(pid int) (ticks uint64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) > 19 {
		_, _ = fmt.Sscan(fields[19], &ticks)
	}
	return ticks
}

// takeLease makes the lease, or takes that of a dead holder, for which it may wait as long as a
// lease lives. ErrBusy says who is alive. ctx ends the wait.
func (own *ownership) takeLease(ctx context.Context) error {
	// Between the end of a dead holder's lease and our own another one may come: then it is looked at in turn.
	for range 3 {
		err := own.makeLease()
		if err == nil {
			return nil
		}
		held, rerr := own.readSmall(leaseFile)
		if errors.Is(rerr, fs.ErrNotExist) {
			return err // it is not there, and cannot be made
		}
		if rerr != nil {
			return rerr
		}
		if err := own.waitDead(ctx, parseHolder(held)); err != nil {
			return err
		}
		if err := ignoreAbsent(own.any().Remove(own.abs(leaseFile))); err != nil {
			return err
		}
	}
	return own.busy("somebody else")
}

// busy names who is in the way, and what to do.
func (own *ownership) busy(who string) error {
	return fmt.Errorf("slave %s: %w: %s is using it; stop that first", own.name(), slave.ErrBusy, who)
}

// waitDead returns nil once the holder is known to be dead, and ErrBusy when it is alive: a process
// of this host is looked up, any other has to change its lease meanwhile. It looks, and waits, up
// to the lease's time.
func (own *ownership) waitDead(ctx context.Context, h holder) error {
	if h.boot == bootID() && h.boot != "-" {
		switch start := startTime(h.pid); {
		case start == 0 || start != h.start:
			return nil
		case h.pid != os.Getpid(): // else it may be an earlier session of our own, which was lost
			return own.busy(fmt.Sprintf("process %d of this host", h.pid))
		}
	}
	for end := time.Now().Add(own.lease.dead); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(own.lease.poll):
		}
		text, err := own.readSmall(leaseFile)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if now := parseHolder(text); now != h && len(text) > 0 {
			return own.busy("another worker")
		}
	}
	return nil
}

// makeLease makes the lease exclusively, and fails where there is one.
func (own *ownership) makeLease() error {
	f, err := own.any().Open(own.abs(leaseFile), wire.OpenWrite|wire.OpenCreate|wire.OpenExcl,
		wire.Attrs{Flags: wire.HasMode, Mode: 0o600})
	if err != nil {
		return err
	}
	err = f.Write(own.self(0).text(), 0)
	return errors.Join(err, f.Close())
}

// keepLease changes the lease from time to time, and ends the session when it is another's. It
// returns when the session ends.
func (own *ownership) keepLease() {
	for number := uint64(1); ; number++ {
		select {
		case <-own.closing:
			return
		case <-own.done:
			return
		case <-time.After(own.lease.step):
		}
		if err := own.renewLease(number); err != nil && own.Err() == nil {
			own.fail(err)
			return
		}
	}
}

// renewLease reads before it writes: a lease that another one took, since this one looked dead, is not taken back.
func (own *ownership) renewLease(number uint64) error {
	text, err := own.readSmall(leaseFile)
	if errors.Is(err, fs.ErrNotExist) {
		return own.stands()
	}
	if err == nil && parseHolder(text).token != own.prefix {
		return own.busy("another worker took the lease, and")
	}
	if err != nil {
		return err
	}
	if path, err := own.any().Realpath(own.o.Path); err == nil && strings.TrimRight(path, "/") != own.root {
		return fmt.Errorf("slave %s: %w", own.name(), slave.Gone(errElsewhere))
	}
	f, err := own.any().Open(own.abs(leaseFile), wire.OpenWrite, wire.Attrs{})
	if err != nil {
		return err
	}
	defer f.Release()
	err = f.Write(own.self(number).text(), 0)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EIO) {
		return nil // a full disk is no reason to give up the slave
	}
	return err
}

// stands tells with slave.ErrAbsent that the root is not at its path any more: nobody but its holder takes a lease away. What
// is done to it then reaches nobody who looks at the path. It costs no round trip beside others.
func (own *ownership) stands() error {
	_, err := own.first().Lstat(own.abs(leaseFile))
	if !errors.Is(err, fs.ErrNotExist) {
		return nil // whatever else it is, it is not this
	}
	if have, err := own.readOwner(); err == nil && have != nil && have.Slave == own.info.Slave {
		return own.busy("another worker took the lease, and")
	}
	return fmt.Errorf("slave %s: %w", own.name(), slave.Gone(errElsewhere))
}

var errElsewhere = errors.New("what this session had taken there is gone: it was renamed, removed, unmounted or mounted over")

// dropLease gives the lease back, if it is ours. A failure leaves it to be found dead.
func (own *ownership) dropLease() {
	if len(own.all()) == 0 || own.first().Err() != nil {
		return
	}
	if text, err := own.readSmall(leaseFile); err == nil && parseHolder(text).token == own.prefix {
		_ = own.any().Remove(own.abs(leaseFile)) // it would be found dead
	}
}
