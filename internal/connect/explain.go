package connect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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
		return fmt.Errorf("%w: %q on %s%s; look there for who ended it, and whether memory is short", ErrAgentEnded, command,
			host, said)
	}
	if errors.Is(err, agent.ErrSilent) {
		return fmt.Errorf("%w: %q on %s: %w%s; a start-up file of the shell there may wait for something: see what ssh to it does",
			ErrNoAnswer, command, host, err, said)
	}
	// It was an agent: it said so before it ended.
	return fmt.Errorf("%w: %q on %s: %w%s", ErrAgentEnded, command, host, err, said)
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
	return slices.ContainsFunc([]error{slave.ErrVersion, slave.ErrNoVolume, slave.ErrNotEmpty, slave.ErrForeign, slave.ErrPolicy,
		slave.ErrAbsent, slave.ErrBusy, slave.ErrUnfit, sshconn.ErrPeerDead, sftp.ErrSilent, context.Canceled, context.DeadlineExceeded},
		func(told error) bool { return errors.Is(err, told) })
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
