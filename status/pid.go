package status

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrRunning: another process holds the pid file. The error is a *RunningError, which has its pid.
var ErrRunning = errors.New("already running")

// RunningError says who holds the pid file.
type RunningError struct{ Pid int } // 0 where the holder has not written it yet

func (e *RunningError) Error() string {
	if e.Pid == 0 {
		return "already running"
	}
	return fmt.Sprintf("already running (pid %d)", e.Pid)
}

// Is makes errors.Is(err, ErrRunning) hold.
func (e *RunningError) Is(target error) bool { return target == ErrRunning }

// PidFile is a held pid file. It is given up by Close or by the end of the process. Safe for concurrent use.
type PidFile struct {
	// mu guards file, which is nil once closed.
	mu   sync.Mutex
	file *os.File
}

// A reader that looks whether the lock is held takes it for an instant; an acquirer therefore tries more than once.
const (
	pidTries = 10
	pidPause = 10 * time.Millisecond
)

// AcquirePid locks the pid file for this process and writes its pid into it. It returns a *RunningError when another
// process has it. The directory must exist.
func AcquirePid(path string) (*PidFile, error) {
	for try := 1; ; try++ {
		p, err := tryPid(path)
		if !errors.Is(err, ErrRunning) || try == pidTries {
			return p, err
		}
		<-time.After(pidPause)
	}
}

// tryPid is one attempt.
func tryPid(path string) (*PidFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, fmt.Errorf("acquire pid file: %w", err)
	}
	if err := lockPid(f, path); err != nil {
		f.Close()
		return nil, err
	}
	pid := strconv.Itoa(os.Getpid()) + "\n"
	_, err = f.WriteAt([]byte(pid), 0)
	// Shortened last, so that a reader finds the old pid or the new one, perhaps with a rest behind the newline.
	if err := errors.Join(err, f.Truncate(int64(len(pid)))); err != nil {
		f.Close()
		return nil, fmt.Errorf("acquire pid file: %w", err)
	}
	return &PidFile{file: f}, nil
}

// lockPid makes sure that the locked file is the one that others find under this name.
func lockPid(f *os.File, path string) error {
	err := flock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return &RunningError{Pid: readPid(f)}
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	// Between open and lock the file may have been removed with its session, and even made again.
	have, errHave := f.Stat()
	there, errThere := os.Stat(path)
	if err := errors.Join(errHave, errThere); err != nil {
		return fmt.Errorf("acquire pid file: %w", err)
	}
	if !os.SameFile(have, there) {
		return &RunningError{}
	}
	return nil
}

// Close gives the pid file up; the file stays. It is idempotent.
func (p *PidFile) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == nil {
		return nil
	}
	// Closing alone would leave the lock with a child that was forked a moment ago and has not reached its exec.
	err := errors.Join(flock(p.file, unix.LOCK_UN), p.file.Close())
	p.file = nil
	return err
}

// Running tells whether a process holds the pid file, and its pid (0 where that cannot be read). A pid that was left
// behind by a process that is gone does not count.
func Running(path string) (pid int, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	err = flock(f, unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return readPid(f), true
	}
	if err == nil {
		flock(f, unix.LOCK_UN)
	}
	return 0, false
}

// readPid reads the first line only: a longer pid of the past may still stand behind it.
func readPid(f *os.File) int {
	buf := make([]byte, 32)
	n, _ := f.ReadAt(buf, 0)
	line, _, ok := strings.Cut(string(buf[:n]), "\n")
	pid, err := strconv.Atoi(line)
	if !ok || err != nil || pid <= 0 {
		return 0
	}
	return pid
}

// flock is flock(2), which a signal may interrupt. The lock belongs to the open file: a second descriptor of the same
// process is another holder.
func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
