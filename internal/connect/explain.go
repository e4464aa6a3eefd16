package connect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"georep/slave"
	"georep/slave/agent"
	"georep/slave/sftp"
	"georep/slave/sshconn"
)

var (
	// ErrNoAgent means that no georep answered at the far end. Final.
	ErrNoAgent = errors.New("no georep there")
	// ErrAgentEnded means that the agent was ended while the session began: by the kernel when memory was short, by an
	// operator, by a host that goes down. Passing.
	ErrAgentEnded = errors.New("the agent ended while the session began")
	// ErrAgentGone means that the agent ended in the middle of a session. Passing.
	ErrAgentGone = errors.New("the agent has ended")
	// ErrNoAnswer means that the login succeeded, and the remote command says nothing. Passing.
	ErrNoAnswer = errors.New("nothing answers there")
)

// explainTime is how long to wait for the exit status of a command that did not turn out to be an agent.
const explainTime = 2 * time.Second

// explain adds what the far end's shell said to an error of the handshake. What the agent itself answered, or a dead
// connection, needs no more words.
func explain(err error, stream *sshconn.Stream, command, host string) error {
	if isTold(err) {
		return fmt.Errorf("%s: %w", host, err)
	}
	said, passes := ending(stream)
	switch {
	case errors.Is(err, agent.ErrNoAgent) && !passes:
		return noAgent(err, said, command, host)
	case errors.Is(err, agent.ErrNoAgent): // what it says is how to install one
		return fmt.Errorf("%w: %q on %s%s; check there what ended it, a lack of memory for example", ErrAgentEnded, command,
			host, said)
	}
	if errors.Is(err, agent.ErrSilent) {
		return fmt.Errorf("%w: %q on %s: %w%s; a start-up file of the shell there may wait for input: try ssh to it by hand",
			ErrNoAnswer, command, host, err, said)
	}
	// It was an agent: it said so before it ended.
	return fmt.Errorf("%w: %q on %s: %w%s", ErrAgentEnded, command, host, err, said)
}

// explainServe adds what an operator can do where georep serve is at the far end.
func explainServe(err error) error {
	switch {
	case errors.Is(err, sshconn.ErrHostKeyUnknown):
		return fmt.Errorf("%w; or see georep serve --fingerprint there, and name it: --host-key FINGERPRINT", err)
	case errors.Is(err, sshconn.ErrAuth):
		return fmt.Errorf("%w; georep authorize prints what lets the session's key in", err)
	case errors.Is(err, sshconn.ErrUnreachable):
		return fmt.Errorf("%w; see whether georep serve runs there", err)
	}
	return err
}

// goneTime is how long the end of a session waits for the host to say how the agent ended.
const goneTime = 500 * time.Millisecond

// streamsOf are the channels of a session. It may be used from any goroutine.
type streamsOf struct {
	mu  sync.Mutex
	all []*sshconn.Stream
}

// add is called for each stream that was opened.
func (s *streamsOf) add(one *sshconn.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, one)
}

// ending says how the first command ended of which that is known within goneTime: all of them end together.
func (s *streamsOf) ending() string {
	s.mu.Lock()
	all := slices.Clone(s.all)
	s.mu.Unlock()
	said := make(chan string, len(all))
	for _, one := range all {
		go func() { // ends by its limit
			var ee *sshconn.ExitError
			if errors.As(one.Exit(goneTime), &ee) {
				said <- " (" + ee.Error() + ")"
			} else {
				said <- ""
			}
		}()
	}
	for range all {
		if text := <-said; text != "" {
			return text
		}
	}
	return ""
}

// gone makes of the error by which an agent's session ended, and of how its command ended, one that
// names the host. Whoever reads it sits at the master, and has to know on which host to look.
func gone(err error, said, host string) error {
	switch {
	case errors.Is(err, sshconn.ErrPeerDead): // it names the host
		return err
	case isAny(err, io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe):
		return fmt.Errorf("%w on %s%s: %w; check there what ended it, a lack of memory for example; it is started again by itself",
			ErrAgentGone, host, said, err)
	}
	return fmt.Errorf("%s: %w", host, err)
}

// isAny tells whether err is, or wraps, one of them.
func isAny(err error, all ...error) bool {
	return slices.ContainsFunc(all, func(one error) bool { return errors.Is(err, one) })
}

// noAgent says what to do where something else answered.
func noAgent(err error, said, command, host string) error {
	what := &agent.NoAgentError{}
	errors.As(err, &what)
	remedy := "install georep there, or name it with --remote-georep PATH"
	if strings.Contains(strings.ToLower(what.Said+said), "sftp") {
		remedy = "that account seems to be for SFTP alone: name the slave sftp://[user@]" + host + "/PATH"
	}
	return fmt.Errorf("%w: %q on %s: %w%s; %s", ErrNoAgent, command, host, what, said, remedy)
}

// isTold tells whether an error needs no more words.
func isTold(err error) bool {
	return isAny(err, slave.ErrVersion, slave.ErrNoVolume, slave.ErrNotEmpty, slave.ErrForeign, slave.ErrPromoted, slave.ErrPolicy, slave.ErrAbsent,
		slave.ErrBusy, slave.ErrUnfit, sshconn.ErrPeerDead, sftp.ErrSilent, context.Canceled, context.DeadlineExceeded)
}

// ending waits for the end of a command, and tells how that was, as an addition to a message, and whether the next try may
// do better.
func ending(stream *sshconn.Stream) (said string, passes bool) {
	err := stream.Exit(explainTime)
	var ee *sshconn.ExitError
	if errors.As(err, &ee) {
		return " (" + ee.Error() + ")", ended(ee)
	}
	return "", errors.Is(err, sshconn.ErrPeerDead) // nobody was left to say how it ended
}

// ended tells whether a command that was no agent may be one at the next try: it did not end by itself, or could not begin
// for now. A shell tells of a signal by a status of 128 and the signal's number, one that relays to another host of whatever
// goes wrong on the way by 255.
func ended(e *sshconn.ExitError) bool {
	const bySignal, lastSignal, relay = 128, 64, 255
	if e.Signal != "" || e.Status > bySignal && e.Status <= bySignal+lastSignal || e.Status == relay {
		return true
	}
	// A host short of memory or processes, and a program that is being replaced.
	for _, passing := range []string{"cannot allocate memory", "out of memory", "resource temporarily unavailable",
		"text file busy", "cannot fork"} {
		if strings.Contains(strings.ToLower(e.Stderr), passing) {
			return true
		}
	}
	return false
}
