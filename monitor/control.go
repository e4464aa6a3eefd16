package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"georep/status"
	"georep/volume"
)

const (
	// controlPoll is how often the pid file and the status file are looked at. There is nothing to wait on: the
	// monitor is no child of whoever stops it or waits for it.
	controlPoll = 20 * time.Millisecond
	// stopPatience is more than a monitor needs for a worker that ignores SIGTERM and a marker that takes its time.
	stopPatience = 40 * time.Second
)

// ErrNotRunning: the session has no monitor.
var ErrNotRunning = errors.New("the session is not running")

// Spawn starts a monitor in the background, in a session of its own, with its standard output and
// error appended to the session's log, and returns once it holds the pid file. It returns a
// *status.RunningError where the session has a monitor already, and an error with the monitor's
// last words where it ended. When ctx ends first, the monitor goes on. What it returns is certain:
// a monitor that holds the pid file has read its session and will go on until it is stopped.
func Spawn(ctx context.Context, cmd *exec.Cmd, files volume.Files) error {
	said, err := Begin(cmd, files)
	if err != nil {
		return err
	}
	// A child that has ended stays a zombie until Wait4 below, so the number is its own as long as it is looked for.
	child := cmd.Process.Pid
	defer cmd.Process.Release()
	return poll(ctx, func() (bool, error) {
		var ws unix.WaitStatus
		ended, _ := unix.Wait4(child, &ws, unix.WNOHANG, nil)
		pid, running := status.Running(files.Pid)
		switch {
		case ended == child && running:
			return true, &status.RunningError{Pid: pid}
		case ended == child:
			return true, fmt.Errorf("start the monitor: it ended: %s", orElse(lastLine(files.Log, said), "see "+files.Log))
		}
		return running && pid == child, nil
	})
}

// Begin is Spawn that waits for nothing: the caller waits for the process. It tells how long the log was before.
func Begin(cmd *exec.Cmd, files volume.Files) (logged int64, err error) {
	log, err := os.OpenFile(files.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, fmt.Errorf("start the monitor: %w", err)
	}
	defer log.Close()
	fi, err := log.Stat()
	if err != nil {
		return 0, fmt.Errorf("start the monitor: %w", err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the monitor: %w", err)
	}
	return fi.Size(), nil
}

// WaitUp waits until the session's monitor holds its pid file, or ctx ends, which is then the error.
func WaitUp(ctx context.Context, files volume.Files) error {
	return poll(ctx, func() (bool, error) {
		_, running := status.Running(files.Pid)
		return running, nil
	})
}

// WaitReady waits until the session's monitor knows how it stands: it returns the first status that is not
// Initializing, which is Active, Paused, or Faulty with its reason. It returns ErrNotRunning, with the log's last line,
// when the monitor ends or none runs, and ctx's error with the status so far when ctx ends.
func WaitReady(ctx context.Context, store *volume.Store, s volume.Session) (status.Status, error) {
	return WaitStatus(ctx, store, s, func(st status.Status) bool { return st.State != status.Initializing })
}

// WaitStatus is WaitReady for any condition, such as Paused after Reload. The status that until sees is true at that
// moment, never one that an earlier monitor left.
func WaitStatus(ctx context.Context, store *volume.Store, s volume.Session, until func(status.Status) bool) (
	status.Status, error,
) {
	files := store.Files(s.Master, s.Slave)
	var st status.Status
	err := poll(ctx, func() (bool, error) {
		if _, running := status.Running(files.Pid); !running {
			return true, fmt.Errorf("session %s to %q: %w: %s", s.Master, s.Slave, ErrNotRunning,
				orElse(lastLine(files.Log, 0), "see "+files.Log))
		}
		var err error
		st, err = Status(store, s)
		return err == nil && until(st), nil
	})
	return st, err
}

// Status returns what is true of the session now (status.Load).
func Status(store *volume.Store, s volume.Session) (status.Status, error) {
	return StatusBy(new(status.Reader), store, s)
}

// StatusBy is Status by a reader that is kept for the session.
func StatusBy(r *status.Reader, store *volume.Store, s volume.Session) (status.Status, error) {
	files := store.Files(s.Master, s.Slave)
	st, err := r.Load(status.Session{
		Master: s.Master, Slave: s.Slave.String(), StatusFile: files.Status, PidFile: files.Pid, Started: s.Started,
	})
	list, cerr := files.Checkpoints()
	for _, c := range list {
		st.Checkpoints = append(st.Checkpoints, status.Checkpoint{Name: c.Name, Time: status.Time{Time: c.Time},
			Completed: !c.Completed.IsZero(), CompletedAt: status.Time{Time: c.Completed}, Unseen: c.Unseen})
	}
	if n := len(list); n > 0 {
		if st.Checkpoint = list[n-1].Name + " is not complete"; !list[n-1].Completed.IsZero() {
			st.Checkpoint = list[n-1].Name + " is complete"
		}
	}
	return st, errors.Join(err, cerr)
}

// Reload makes the monitor read the session again, after its Paused or its configuration was saved: it pauses or resumes
// the worker, or restarts it with the new configuration; where nothing has changed it makes the worker look at its slave
// again. It does not wait for that. ErrNotRunning where none runs.
func Reload(store *volume.Store, s volume.Session) error {
	return signalMonitor(store.Files(s.Master, s.Slave), reloadSignal)
}

// Stop ends the session's monitor, its worker and, where no other session needs it, the marker, and waits for that. A
// monitor that does not end in 40 seconds is killed; its worker ends by itself then. ErrNotRunning where none runs. When
// ctx ends first, the monitor is still ending.
func Stop(ctx context.Context, store *volume.Store, s volume.Session) error {
	files := store.Files(s.Master, s.Slave)
	if err := signalMonitor(files, unix.SIGTERM); err != nil {
		return err
	}
	gone := func() (bool, error) {
		_, running := status.Running(files.Pid)
		return !running, nil
	}
	patient, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	err := poll(patient, gone)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if err := signalMonitor(files, unix.SIGKILL); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	return poll(ctx, gone)
}

// signalMonitor signals the process that holds the pid file, and no other. A process that does not
// hold the lock is never signalled, whatever number the file has.
func signalMonitor(files volume.Files, sig os.Signal) error {
	pid, running := status.Running(files.Pid)
	if !running {
		return ErrNotRunning
	}
	if pid == 0 {
		return fmt.Errorf("signal the monitor: %s has no pid", files.Pid)
	}
	// The process is opened first and the lock looked at again, so that a number that was given to another process
	// meanwhile is not signalled.
	p, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("signal the monitor: %w", err)
	}
	defer p.Release()
	if again, running := status.Running(files.Pid); !running || again != pid {
		return ErrNotRunning
	}
	err = p.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return ErrNotRunning
	}
	if err != nil {
		return fmt.Errorf("signal the monitor (pid %d): %w", pid, err)
	}
	return nil
}

// poll calls done until it says so, fails, or ctx ends. It calls it at least once. An error of done
// ends it at once.
func poll(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(controlPoll)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// orElse is s, or other where s is empty.
func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
