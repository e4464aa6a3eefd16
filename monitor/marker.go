package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/status"
	"georep/volume"
)

const (
	markerCheck = time.Second      // how often the marker's lock is looked at
	markerFast  = 5 * time.Second  // a marker that ends sooner died at once
	markerSlow  = 30 * time.Second // a marker that has no lock by then does not come up
	markerEnd   = 10 * time.Second // a marker that nobody needs has so long to end
	markerKill  = 5 * time.Second  // and so long more after SIGTERM
	// releaseCheck is how often release looks whether the marker is gone.
	releaseCheck = 50 * time.Millisecond
	// stderrTail is how much of a log's end is read to find the last line, in bytes.
	stderrTail = 4 << 10
)

// keeper sees to it that the volume's marker process runs. The marker is shared: whoever finds the lock free starts
// one, and of two that were started at the same moment the one without the lock ends by itself. For one goroutine. It
// goes by the two locks of volume.Runtime alone: MarkerLock is held by the marker that runs, UsersLock is held shared
// by every session that needs one.
type keeper struct {
	files volume.Runtime
	// command makes the marker's command line; retryMax bounds the pause after a marker that died at once.
	command  func() *exec.Cmd
	retryMax time.Duration
	random   func() float64
	log      zerolog.Logger

	users   *volume.Lock // shared, for as long as this session needs the marker
	child   int          // the marker that was started here, 0 when it is gone or none was
	since   time.Time    // it was started then
	tries   int          // deaths in a row
	nextTry time.Time
	trouble string // for the operator
}

// run looks after the marker until ctx ends and passes trouble, and the end of trouble, to emit. It
// may start a marker more than once, and never two at a time.
func (k *keeper) run(ctx context.Context, emit func(event)) {
	ticker := time.NewTicker(markerCheck)
	defer ticker.Stop()
	told := ""
	for {
		k.step(time.Now())
		if k.trouble != told {
			told = k.trouble
			emit(marker{trouble: told})
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// step looks once and starts a marker where none runs and none is coming up. Trouble is for the
// session's status; a marker that runs is none, whoever started it.
func (k *keeper) step(now time.Time) {
	// Before the lock is looked at: in the other order the end of a marker in between would go unnoted, for its lock was
	// still held.
	died, how := k.reap()
	held, err := volume.Locked(k.files.MarkerLock, volume.Shared)
	switch {
	case err != nil:
		k.trouble = "marker: " + err.Error()
	case held:
		if k.child == 0 || now.Sub(k.since) >= markerFast {
			k.trouble, k.tries = "", 0
		}
	case died:
		k.died(now, how)
	case k.child != 0:
		if now.Sub(k.since) >= markerSlow {
			k.trouble = "marker: it does not come up: see " + k.files.MarkerLog
		}
	}
	if err == nil && !held && k.child == 0 && !now.Before(k.nextTry) {
		k.spawn(now)
	}
}

// reap collects the marker that was started here, if it has ended.
func (k *keeper) reap() (died bool, how string) {
	if k.child == 0 {
		return false, ""
	}
	var ws unix.WaitStatus
	pid, err := unix.Wait4(k.child, &ws, unix.WNOHANG, nil)
	if pid != k.child && !errors.Is(err, unix.ECHILD) {
		return false, ""
	}
	k.child = 0
	if ws.Signaled() {
		return true, "signal: " + ws.Signal().String()
	}
	return true, fmt.Sprintf("exit status %d", ws.ExitStatus())
}

// died notes why. One that lived for a while is started again without a word.
func (k *keeper) died(now time.Time, how string) {
	why := lastLine(k.files.MarkerStderr, 0)
	k.log.Warn().Str("how", how).Str("error", why).Msg("the marker ended")
	if now.Sub(k.since) >= markerFast {
		k.tries, k.nextTry = 0, now
		return
	}
	if why == "" {
		why = "see " + k.files.MarkerLog
	}
	k.fail(now, fmt.Sprintf("marker: it ended (%s): %s", how, why))
}

// fail notes trouble and puts the next try off.
func (k *keeper) fail(now time.Time, trouble string) {
	k.trouble = status.OneLine(trouble)
	k.nextTry = now.Add(backoff(k.tries, k.retryMax, k.random()))
	k.tries++
}

// spawn starts a marker in a session of its own, for it must live on when this monitor ends and
// others need it. What it says on standard error is the reason that died gives, if it ends at once.
func (k *keeper) spawn(now time.Time) {
	// A file, not a pipe: the marker may outlive this monitor.
	stderr, err := os.OpenFile(k.files.MarkerStderr, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		k.fail(now, "marker: "+err.Error())
		return
	}
	defer stderr.Close()
	cmd := k.command()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, stderr, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		k.fail(now, "marker: start it: "+err.Error())
		return
	}
	k.child, k.since = cmd.Process.Pid, now
	cmd.Process.Release() // it is reaped by number, since nobody may wait for it here
	k.log.Info().Int("pid", k.child).Msg("marker started")
}

// release says that this session needs the marker no more. Where no other session does, it returns
// when the marker has ended; one that was started here is ended by force if it does not go by
// itself. It is called once, as the last thing that the monitor does.
func (k *keeper) release() {
	k.users.Close()
	if k.waitGone(markerEnd) {
		return
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if k.child != 0 {
			unix.Kill(-k.child, sig) // not reaped yet, so the number is still its own
		}
		if k.waitGone(markerKill) {
			return
		}
	}
	k.log.Error().Msg("the marker does not end")
}

// waitGone waits until the marker is gone or another session has a use for it. An error of looking
// ends the wait, too: nothing could be told for certain any more.
func (k *keeper) waitGone(patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ticker := time.NewTicker(releaseCheck)
	defer ticker.Stop()
	for {
		k.reap()
		held, err := volume.Locked(k.files.MarkerLock, volume.Shared)
		if err != nil || !held && k.child == 0 || k.others() {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}

// others tells whether another session holds the users' lock. A marker that is about to end holds it exclusively.
func (k *keeper) others() bool {
	used, err := volume.Locked(k.files.UsersLock, volume.Exclusive)
	if err != nil || !used {
		return false
	}
	ending, err := volume.Locked(k.files.UsersLock, volume.Shared)
	return err == nil && !ending
}

// lastLine returns the last line of a file that has text, from offset on; "" where there is none.
func lastLine(path string, offset int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if fi, err := f.Stat(); err == nil {
		offset = max(offset, fi.Size()-stderrTail)
	}
	text, err := io.ReadAll(io.NewSectionReader(f, offset, stderrTail))
	if err != nil {
		return ""
	}
	lines := strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
	for i := len(lines) - 1; i >= 0; i-- {
		if strings.TrimSpace(lines[i]) != "" {
			return plain(lines[i])
		}
	}
	return ""
}
