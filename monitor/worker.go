package monitor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"georep/monitor/report"
)

const (
	// tellPatience bounds the writing of a command to a worker that does not read.
	tellPatience = time.Second
	// drainPatience bounds the reading of what a worker wrote before it ended, in case a stranger holds its pipes.
	drainPatience = 2 * time.Second
)

// worker is one worker process and the goroutines that listen to it. They end with the process. The goroutine that
// listens reaps the process and closes the pipes; tell, term and kill may be called from another one until then and
// do nothing after.
type worker struct {
	cmd *exec.Cmd
	// stdin takes commands, reports brings reports, and stderr has the worker's log and last words.
	stdin   *os.File // our ends of the pipes
	reports *os.File
	stderr  *os.File
	// log belongs to the reader of stderr until readers is done.
	log     *stderrLog
	readers errgroup.Group

	// mu guards reaped, and is held while a signal is sent.
	mu     sync.Mutex
	reaped bool // the process number may be another's by now
}

// startWorker starts cmd in a process group of its own, with the pipes that package report describes.
func startWorker(cmd *exec.Cmd, log *stderrLog) (*worker, error) {
	w := &worker{cmd: cmd, log: log}
	var theirs []*os.File
	defer func() { closeAll(theirs) }()
	for _, p := range []struct {
		ours    **os.File
		writing bool
	}{{&w.stdin, true}, {&w.reports, false}, {&w.stderr, false}} {
		r, wr, err := os.Pipe()
		if err != nil {
			w.close()
			return nil, fmt.Errorf("make a pipe: %w", err)
		}
		if p.writing {
			r, wr = wr, r
		}
		*p.ours, theirs = r, append(theirs, wr)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[0], theirs[2], theirs[2]
	cmd.ExtraFiles = []*os.File{theirs[1]} // descriptor report.FD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// listen passes each report to emit, and exited once the process, its group and the readers are gone. It blocks.
func (w *worker) listen(emit func(event)) {
	w.readers.Go(func() error { w.readReports(emit); return nil })
	w.readers.Go(func() error { w.log.read(w.stderr); return nil })
	why := w.wait()
	deadline := time.Now().Add(drainPatience)
	w.reports.SetReadDeadline(deadline)
	w.stderr.SetReadDeadline(deadline)
	w.readers.Wait()
	w.close()
	emit(exited{why: w.log.explain(why)})
}

// readReports ends with the pipe: all of the group that had it are gone, or the drain took too long.
func (w *worker) readReports(emit func(event)) {
	d := report.NewDecoder(w.reports)
	for {
		r, err := d.Next()
		switch {
		case err == nil:
			emit(reported{r})
		case errors.Is(err, report.ErrMalformed):
			w.log.log.Warn().Err(err).Msg("report of the worker ignored")
		default:
			return
		}
	}
}

// wait returns how the process ended, once no process of its group is left.
func (w *worker) wait() string {
	// The process stays a zombie until the group is killed, so that its number cannot be given to another one.
	for {
		err := unix.Waitid(unix.P_PID, w.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	// Whatever the worker started goes with it: nothing of an old worker may write to the slave beside a new one.
	w.kill()
	w.mu.Lock()
	w.reaped = true
	w.mu.Unlock()
	if err := w.cmd.Wait(); err != nil {
		return err.Error()
	}
	return "exit status 0"
}

// kill kills the process group.
func (w *worker) kill() { w.signal(-1, unix.SIGKILL) }

// term asks the worker, and not what it may have started, to end.
func (w *worker) term() { w.signal(1, unix.SIGTERM) }

// signal sends to the process, or to its group where sign is -1, unless it is reaped.
func (w *worker) signal(sign int, sig unix.Signal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.reaped {
		unix.Kill(sign*w.cmd.Process.Pid, sig)
	}
}

// tell writes a command. Errors are no news: a worker that cannot be told is ending or will be found hung.
func (w *worker) tell(v report.Verb) {
	w.stdin.SetWriteDeadline(time.Now().Add(tellPatience))
	report.WriteCommand(w.stdin, report.Command{Verb: v})
}

// close closes our ends of the pipes; what is not open yet is nil, which Close bears.
func (w *worker) close() { closeAll([]*os.File{w.stdin, w.reports, w.stderr}) }

func closeAll[C io.Closer](files []C) {
	for _, f := range files {
		f.Close()
	}
}
