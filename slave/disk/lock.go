package disk

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"georep/slave"
)

// How long an agent that was left over gets to end, and how often that is looked at.
const (
	leftOverGrace = 5 * time.Second
	leftOverPoll  = 20 * time.Millisecond
)

const lockFile = "lock"

// takeLock takes the slave for this session. An agent of the same session whose connection died is
// asked to end. The file stays open for reading only, so that an idle agent does not keep the file
// system from being made read-only. ErrBusy says which process has it. What the file says is for
// people and for the next agent; the lock itself is the kernel's, and ends with the process.
func (w *ownership) takeLock(o Options) error {
	made, err := w.base.OpenFile(lockFile, unix.O_WRONLY|unix.O_CREAT, 0o600)
	if err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	defer made.Close()
	f, err := w.base.OpenFile(lockFile, unix.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	w.lock = f
	err = tryLock(f)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = waitLeftOver(f, o)
	}
	if err != nil {
		return fmt.Errorf("lock slave %s: %w", o.Path, err)
	}
	text := fmt.Sprintf("%d %s\n", os.Getpid(), o.Session)
	// In this order a full file system lets it be written over where it was.
	if _, err := made.WriteAt([]byte(text), 0); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	if err := made.Truncate(int64(len(text))); err != nil {
		return fmt.Errorf("slave %s: %w: %w", o.Path, slave.ErrUnfit, err)
	}
	return nil
}

// unlock lets go of the slave. It may run twice.
func (w *ownership) unlock() {
	if w.lock != nil {
		w.lock.Close()
	}
}

// tryLock takes the lock if it is free. It belongs to the open file, so it ends with the process, however that ends.
func tryLock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// waitLeftOver ends the holder where it is ours, and waits for its lock. Only a process that is
// this program, of this user, for this session, and that really holds the lock, is sent a signal.
func waitLeftOver(f *os.File, o Options) error {
	pid, session := readHolder(f)
	if session != o.Session.String() || !ours(pid) || !holdsLock(f, pid) {
		return fmt.Errorf("%w (process %d): stop that one first", slave.ErrBusy, pid)
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w (process %d): %w", slave.ErrBusy, pid, err)
	}
	tick := time.NewTicker(leftOverPoll)
	defer tick.Stop()
	end := time.NewTimer(leftOverGrace)
	defer end.Stop()
	for {
		if err := tryLock(f); !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-tick.C:
		case <-end.C:
			return fmt.Errorf("%w (process %d does not end): stop that one first", slave.ErrBusy, pid)
		}
	}
}

// readHolder gives what the lock file says of its holder; pid 0 if nothing. Nothing of it is
// believed before holdsLock has said so.
func readHolder(f *os.File) (pid int, session string) {
	buf := make([]byte, 128)
	n, _ := f.ReadAt(buf, 0)
	first, rest, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	pid, err := strconv.Atoi(first)
	if err != nil || pid <= 1 {
		return 0, rest
	}
	return pid, rest
}

// ours tells whether pid is another process of this user and this program. The name of the program
// is compared, since an agent of an earlier version has another path.
func ours(pid int) bool {
	if pid == 0 || pid == os.Getpid() {
		return false
	}
	proc := "/proc/" + strconv.Itoa(pid)
	var st unix.Stat_t
	if unix.Stat(proc, &st) != nil || int(st.Uid) != os.Geteuid() {
		return false
	}
	theirs, err := os.ReadFile(proc + "/comm")
	mine, err2 := os.ReadFile("/proc/self/comm")
	return err == nil && err2 == nil && string(theirs) == string(mine)
}

// holdsLock asks the kernel whether pid holds the lock on f: the number in the file may long be
// somebody else's. False also where /proc does not say: then nobody is ended.
func holdsLock(f *os.File, pid int) bool {
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	inode := ":" + strconv.FormatUint(st.Ino, 10)
	for line := range strings.Lines(string(locks)) {
		// "1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF"
		w := strings.Fields(line)
		if len(w) >= 6 && w[1] == "FLOCK" && w[4] == strconv.Itoa(pid) && strings.HasSuffix(w[5], inode) {
			return true
		}
	}
	return false
}
