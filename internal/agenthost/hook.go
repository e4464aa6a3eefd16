package agenthost

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/changes"
	"georep/internal/hooks"
	"georep/internal/words"
	"georep/slave/policy"
	"georep/volume"
)

// This file runs the hook of a policy. The agent itself may run no program once it is confined. So it starts a process before that, which
// has the rights of the login, and is given lists of paths through a pipe, and nothing else: what to run it knows from the beginning.

const (
	// hookPatience is how long the hook's process has to take the rest when a session ends, and leftPatience how long the command has
	// for it then. What is not told by then is told to all as "all" when the next session begins.
	hookPatience = time.Second
	leftPatience = 30 * time.Second
	// livedLong is how long the hook's process must have run for its end to end the session, which begins anew and has another one.
	livedLong = time.Minute
	// diedEarly is when one that ended sooner is tried again, by the same means.
	diedEarly = time.Hour
	// lockEvery is how often a hook's process looks whether the one before has ended.
	lockEvery = 100 * time.Millisecond
	// maxList bounds one list of paths.
	maxList = 8 << 20
)

// hookTask is what the hook's process is told when it starts. It is on the process's command line,
// so there is nothing secret in it. It belongs to one session.
type hookTask struct {
	Command []string `json:"command"`
	Pattern string   `json:"pattern"`
	Log     string   `json:"log"` // the audit log
	Of      Event    `json:"of"`  // what its lines begin with
}

// hook is the agent's end.
type hook struct {
	changes *changes.Changes
	pipe    *os.File
	stop    func() // the telling
	ended   chan struct{}
	long    bool      // it had lived long when it ended
	again   time.Time // when the session ends for it in any case
}

// startHook starts the process and begins to tell it what has become durable. An error is written
// to the audit log by the caller, and the session goes on without a hook.
func startHook(o *Host, p *policy.Policy, r *recorder) (*hook, error) {
	command, err := words.Command(p.Hook)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(hookTask{Command: command, Pattern: p.HookPattern, Log: r.audit.path, Of: r.event})
	if err != nil {
		return nil, err
	}
	cmd, err := o.Hook(string(text))
	if err != nil {
		return nil, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = out, nil, nil // not the session's, which sshd waits for
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the hook's process: %w", err), in.Close())
	}
	began, long := time.Now(), cmp.Or(o.hookLived, livedLong)
	h := &hook{changes: changes.New(), pipe: in, ended: make(chan struct{}), again: began.Add(cmp.Or(o.hookAgain, diedEarly))}
	go func() {
		err := cmd.Wait()
		h.long = time.Since(began) >= long
		if err != nil {
			r.hookFails(fmt.Errorf("the hook's process ended: %w; it hears of changes again from the next session on", err))
		}
		close(h.ended)
	}()
	h.stop = h.changes.Run(h.tell)
	return h, nil
}

// tell writes one list. It waits for a process that takes nothing: what changes meanwhile is gathered, up to a bound.
func (h *hook) tell(t changes.Told) error {
	line, err := json.Marshal(t)
	if err != nil {
		return err
	}
	_, err = h.pipe.Write(append(line, '\n'))
	return err
}

// lives ends a session whose hook hears nothing any more. One that ends soon after its start ends it much later: that would hold up
// replication.
func (h *hook) lives() error {
	select {
	case <-h.ended:
		if h.long || time.Now().After(h.again) {
			return errors.New("the process on the slave's host that runs its hook has ended: the session begins anew, with another one")
		}
	default:
	}
	return nil
}

// close hands over the rest. It waits for nobody for long.
func (h *hook) close() {
	// It ends a write that waits, too.
	_ = h.pipe.SetWriteDeadline(time.Now().Add(hookPatience))
	h.stop()
	_ = h.pipe.Close()
}

// hookFails writes down what is wrong with the hook.
func (r *recorder) hookFails(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.event
	e.Event, e.Reason = Hook, err.Error()
	r.audit.write(e)
}

// RunHook is the hook's process. It runs the command for the lists that come from the agent, and once that is gone for those that are
// left, for a while. A command that fails is tried again, and is named in the audit log once until it works again. The end of ctx ends it.
func RunHook(ctx context.Context, text string, lists io.Reader) (err error) {
	var task hookTask
	if err := json.Unmarshal([]byte(text), &task); err != nil {
		return fmt.Errorf("read the task of the hook's process: %w", err)
	}
	r := &recorder{event: task.Of, audit: newAudit(task.Log, nil)} // nobody listens to a process of a session that may be over
	defer r.audit.close()
	of := &task.Of
	lock := &hookLock{path: fmt.Sprintf("%s.hook-%x", task.Log, sha256.Sum256([]byte(of.Slave)))[:len(task.Log)+len(".hook-")+16]}
	runner := hooks.StartChanged(hooks.Config{Master: of.Master, Slave: of.Slave,
		Hook:   volume.Hook{Command: task.Command, Changed: true, Pattern: task.Pattern},
		Failed: func(_ string, err error) { r.hookFails(err) }, Alone: lock.take})
	read := make(chan error, 1)
	go func() { read <- hear(runner, lists) }() // ends with this process at the latest
	select {
	case err = <-read:
	case <-ctx.Done():
	}
	left, cancel := context.WithTimeout(ctx, leftPatience)
	defer cancel()
	if !runner.Drain(left) {
		r.hookFails(errors.New("the last changes could not be reported before the end; the next session begins by reporting all"))
	}
	return errors.Join(err, ctx.Err())
}

// hear hands on what comes from the agent, until that is gone. An error is that of the pipe, or of
// a list that is too long.
func hear(runner *hooks.Runner, lists io.Reader) error {
	lines := bufio.NewScanner(lists)
	lines.Buffer(nil, maxList)
	for lines.Scan() {
		var t changes.Told
		if err := json.Unmarshal(lines.Bytes(), &t); err != nil {
			t = changes.Told{All: true} // an agent was killed while it wrote
		}
		runner.Changed(t.All, t.Paths, t.Trees)
	}
	return lines.Err()
}

// hookLock keeps the processes of one slave's hook apart. That of a session before may still tell what was left of it, and no command is
// to be run twice at the same time.
type hookLock struct {
	path string
	file *os.File
}

// take waits for the lock. Where there can be none it goes on without. The kernel frees it when the
// process ends, however that ends.
func (l *hookLock) take(ctx context.Context) (err error) {
	if l.file, err = os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil
	}
	tick := time.NewTicker(lockEvery)
	defer tick.Stop()
	for {
		err := unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
