package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

const (
	// copySize is what is read of a channel at once, in bytes. sshd has 16 KiB.
	copySize = 128 << 10
	// exitNotStarted is what a shell gives for a command that it could not run.
	exitNotStarted = 126
	// lingering is how long the last words of an agent may take to reach a client that does not read.
	lingering = 10 * time.Second
)

// agent runs an agent on a channel, and tells the client how it ended. It returns once the agent has ended.
func (c *conn) agent(ctx context.Context, ch ssh.Channel) {
	cmd, err := c.command()
	if err != nil {
		c.server.cfg.Log.Error().Err(err).Msg("start an agent")
		fmt.Fprintf(ch.Stderr(), "georep serve: %v\n", err)
		finish(ch, exitNotStarted, "")
		return
	}
	status, signal := c.run(ctx, ch, cmd)
	finish(ch, status, signal)
}

// command is the agent's. It is made for each channel, for what the file allows the key now: it may have changed since the login.
func (c *conn) command() (*exec.Cmd, error) {
	grant, err := c.server.grant(c.key)
	if err != nil {
		return nil, err
	}
	who := Client{Grant: grant, Key: ssh.FingerprintSHA256(c.key)}
	who.From, _ = c.raw.RemoteAddr().(*net.TCPAddr)
	who.To, _ = c.raw.LocalAddr().(*net.TCPAddr)
	return c.server.cfg.Agent(who)
}

// run starts the agent and copies until it has ended. The end of the channel is the end of its input, by which it ends by
// itself once it has applied what has arrived. It is only killed where the server stops and it takes too long.
func (c *conn) run(ctx context.Context, ch ssh.Channel, cmd *exec.Cmd) (status uint32, signal string) {
	// Standard error is for the client's operator, as under sshd. WaitDelay is for one who does not read it.
	cmd.Stderr, cmd.WaitDelay = ch.Stderr(), lingering
	stdin, err := cmd.StdinPipe()
	var stdout io.ReadCloser
	if err == nil {
		stdout, err = cmd.StdoutPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil { // short of memory or processes, or a program that is being replaced
		c.server.cfg.Log.Error().Err(err).Msg("start an agent")
		fmt.Fprintf(ch.Stderr(), "georep serve: start an agent: %v\n", err)
		return exitNotStarted, ""
	}
	// The goroutines below end with the agent and the channel, and belong to the connection, which waits for them.
	done := make(chan struct{})
	defer close(done)
	c.wg.Go(func() { c.server.killLate(ctx, cmd, done) })
	c.wg.Go(func() {
		defer stdin.Close()
		_, _ = io.CopyBuffer(onlyWriter{stdin}, onlyReader{ch}, make([]byte, copySize))
	})
	// A client that reads nothing must not keep an agent that has ended: the wait below closes stdout.
	copied := make(chan struct{})
	c.wg.Go(func() {
		defer close(copied)
		_, _ = io.CopyBuffer(onlyWriter{ch}, onlyReader{stdout}, make([]byte, copySize))
		// The agent must not write into a pipe that nobody reads.
		_ = stdout.Close()
	})
	state, waited := await(cmd, copied, func() { _ = ch.Close() })
	if waited != nil { // what the client is told is then no more than that it did not work
		c.server.cfg.Log.Warn().Err(waited).Msg("wait for an agent")
		return exitNotStarted, ""
	}
	return state.exit()
}

// killLate bounds the end of the server, so that a disk that hangs does not keep it for good. It kills an agent that is not done StopTime after ctx has ended. Its process is there until done is closed.
func (s *Server) killLate(ctx context.Context, cmd *exec.Cmd, done <-chan struct{}) {
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	select {
	case <-done:
	case <-time.After(s.cfg.Limits.StopTime):
		// It may have ended just now.
		_ = cmd.Process.Kill()
	}
}

// ended is how a process did. It is a status of the kernel, which tells a signal from an exit.
type ended struct{ syscall.WaitStatus }

// exit is what SSH tells of it: a status, or the name of a signal without SIG.
func (e ended) exit() (status uint32, signal string) {
	if e.Signaled() {
		return 0, strings.TrimPrefix(unix.SignalName(e.Signal()), "SIG")
	}
	return uint32(e.ExitStatus()), ""
}

// await waits for the process first, since what it said last may be in its pipes, then for the copying of that, and
// then collects it. cut ends the copying where the client does not read.
func await(cmd *exec.Cmd, copied <-chan struct{}, cut func()) (ended, error) {
	var info unix.Siginfo
	// Wait alone would close the pipes, and what is in them would be lost.
	for {
		// It stays a zombie, so that its number is nobody else's until Wait.
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	select {
	case <-copied:
	case <-time.After(lingering):
		cut()
		<-copied
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return ended{}, fmt.Errorf("wait for an agent: %w", err)
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		return ended{}, errors.New("wait for an agent: no status")
	}
	return ended{status}, nil
}

// finish tells the client how the agent ended, as sshd does: first that nothing more comes, then the status or the signal.
// A client that is gone does not hear it. The caller closes the channel.
func finish(ch ssh.Channel, status uint32, signal string) {
	_ = ch.CloseWrite()
	if signal != "" {
		_, _ = ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Signal        string
			Core          bool
			Message, Lang string
		}{Signal: signal}))
		return
	}
	_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
}

// onlyReader and onlyWriter make one copy of each byte in pieces of copySize, whatever either end is. They hide what io.Copy would use instead of the buffer that it is given.
type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }
