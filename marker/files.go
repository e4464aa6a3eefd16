package marker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The files of a runtime directory.
const (
	lockFile      = "marker.lock"
	clockFile     = "marker.clock"
	heartbeatFile = "marker.heartbeat"
	statusFile    = "marker.status"
	ownFile       = "marker.own"
	mountsFile    = "marker.mounts"
	timesFile     = "marker.times"
	usersFile     = "users.lock"
	// lookFile is made by whoever waits for a mark: a look at what is held open is then due at once.
	lookFile = "marker.look"
)

// lockTries and lockPause let a lock outlast the moment for which Alive holds it.
const (
	lockTries = 10
	lockPause = 20 * time.Millisecond
)

// lock takes the flock that says "this volume's marker lives". Closing the file gives it back.
func lock(ctx context.Context, dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the volume's runtime directory: %w", err)
	}
	for try := 1; ; try++ {
		f, err := tryLock(filepath.Join(dir, lockFile), unix.LOCK_EX)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return f, err
		}
		if try == lockTries {
			return nil, fmt.Errorf("lock %s: %w", filepath.Join(dir, lockFile), ErrRunning)
		}
		if err := pause(ctx, lockPause); err != nil {
			return nil, err
		}
	}
}

// tryLock opens path, making it where needed, and takes a flock on it without waiting.
func tryLock(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// pause waits for d, or until ctx ends, which is then the error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// usedTime is how long this thread, or this process, has had a processor: CLOCK_THREAD_CPUTIME_ID, CLOCK_PROCESS_CPUTIME_ID. What
// is to cost little is measured by that: on a busy machine work waits, and costs no more.
func usedTime(clock int32) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("read how long a processor was used: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}
