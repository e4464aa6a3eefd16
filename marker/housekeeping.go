package marker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

const (
	keepEach      = time.Second
	heartbeatEach = 5 // times keepEach, between two durable heartbeats
	unusedGrace   = 1 // times keepEach, before anybody has to use the marker: whoever starts it holds the lock before
)

// keep does, each second, what does not depend on events: it proves that the root is still the master, writes the
// status and the heartbeat, and sees whether anybody still uses the marker. What a scan has made good is in the status at
// once: a session that starts waits for that.
func (m *marker) keep(ctx context.Context) error {
	ticker := time.NewTicker(keepEach)
	defer ticker.Stop()
	for n := 0; ; n++ {
		if err := m.keepOnce(n); err != nil {
			return err
		}
		for waits := true; waits; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-ticker.C:
				waits = false
			case <-m.beats.caught:
				if err := m.writeStatus(); err != nil {
					return err
				}
			}
		}
	}
}

// keepOnce is one turn of keep, the nth. An error ends the marker: the root is not the volume's any
// more, or its state cannot be written, after which it could claim nothing.
func (m *marker) keepOnce(n int) error {
	if err := m.checkRoot(); err != nil {
		return err
	}
	if m.mounts.some() {
		// No event tells that a directory above moved. What fails is tried again.
		m.scanner.lookAtMounts()
	}
	if n%heartbeatEach == 0 {
		if err := m.beats.save(); err != nil {
			return err
		}
	}
	m.troubles.prune()
	if err := m.writeStatus(); err != nil {
		return err
	}
	if m.o.ExitWhenUnused && n >= unusedGrace {
		return m.checkUsers()
	}
	return nil
}

// checkRoot fails once the root's path leads to another directory than the volume's. A root that
// cannot be looked at for another reason is only logged: a network file system may be away for a
// while.
func (m *marker) checkRoot() error {
	root, err := beneath.OpenRoot(m.o.Root, true)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("volume %s is gone: %w: %w", m.o.Root, ErrNotMaster, err)
	}
	if err != nil {
		m.Often.Warn().Err(beneath.RootError(m.o.Root, err)).Msg("could not look at the volume's root")
		return nil
	}
	defer root.Close()
	root.Hook(m.o.hook)
	id, err := root.Identity()
	if err == nil && id != m.o.Identity {
		return fmt.Errorf("volume %s: %w any more: the path leads to another directory (was a file system unmounted?)",
			m.o.Root, ErrNotMaster)
	}
	return nil
}

// checkUsers returns errUnused when nobody holds users.lock; it keeps the lock then, so that whoever comes now waits
// until this marker is gone.
func (m *marker) checkUsers() error {
	f, err := tryLock(filepath.Join(m.o.Dir, usersFile), unix.LOCK_EX)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	m.users = f
	return errUnused
}

// writeStatus gathers what all parts say into one file, replaced as a whole. It may be called from
// several goroutines.
func (m *marker) writeStatus() error {
	// A raised volume mark is told by the scan, at any moment: two writers would take the new file from each other.
	m.writing.Lock()
	defer m.writing.Unlock()
	if err := m.tick(); err != nil {
		return err
	}
	hb, how := m.beats.get(), m.how.Load()
	s := Status{
		PID: os.Getpid(), Source: how.source, Reason: how.reason, VolumeMark: m.o.VolumeMark,
		Heartbeat: hb.Time, HeartbeatXtime: hb.Xtime, Entries: hb.Entries,
		Scanning: m.scanner.scanning.Load(), Retrying: int(m.counts.retrying.Load()), Confined: m.o.Confined, Tick: m.asked.ticked,
	}
	if _, missing := m.beats.losses(); missing && how.source != SourceScan {
		s.Reason = "finding what changed unseen since " + hb.Time.Format(time.RFC3339)
	} else if s.Retrying > 0 {
		s.Reason = fmt.Sprintf("%d marks failed and are tried again%s", s.Retrying, m.troubles.such())
	}
	m.troubles.refusals.fill(&s)
	m.held.unseen.fill(&s)
	s.Overflows, s.Marks = m.counts.overflows.Load(), m.counts.marks.Load()
	if err := writeStatus(m.files, m.o.Dir, &s); err != nil {
		return fmt.Errorf("write the marker's status: %w", err)
	}
	return nil
}
