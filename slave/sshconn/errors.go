package sshconn

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// What can go wrong, as callers decide on it. Every message that wraps one of these is a single line with the cause
// and the remedy.
var (
	// ErrHostKeyUnknown: known_hosts has no key for the host. Final.
	ErrHostKeyUnknown = errors.New("host key unknown")
	// ErrHostKeyChanged: known_hosts has only other keys for the host. Final.
	ErrHostKeyChanged = errors.New("host key changed")
	// ErrHostKeyRevoked: known_hosts marks the offered key as revoked. Final.
	ErrHostKeyRevoked = errors.New("host key revoked")
	// ErrAuth: the host accepted none of our keys. Final.
	ErrAuth = errors.New("authentication refused")
	// ErrConfig: ssh_config, known_hosts or the target cannot be used as they are. Final.
	ErrConfig = errors.New("ssh configuration unusable")
	// ErrIncompatible: the host speaks SSH, but no algorithm that we accept. Final.
	ErrIncompatible = errors.New("no common ssh algorithm")
	// ErrUnreachable: no name, no route, refused, timed out, or cut during the handshake. Passing.
	ErrUnreachable = errors.New("host unreachable")
	// ErrPeerDead: an established connection was lost, or its peer fell silent. Passing.
	ErrPeerDead = errors.New("peer dead")
	// ErrExec: the host did not start a command. Passing.
	ErrExec = errors.New("remote command not started")

	// errVanished is how a command ends whose server, or connection, gave no status.
	errVanished = errors.New("the remote command vanished without an exit status")
)

// Final tells whether err stays until somebody changes something: a key, an account, a configuration. What is not
// final may be gone at the next try.
func Final(err error) bool {
	for _, final := range []error{
		ErrHostKeyUnknown, ErrHostKeyChanged, ErrHostKeyRevoked, ErrAuth, ErrConfig, ErrIncompatible,
	} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// ExitError says how a remote command ended, when that was not with status 0.
type ExitError struct {
	Status int    // the exit status; 127 is a shell's word for "no such command"; -1 after a signal
	Signal string // the signal's name without SIG, "" for none
	Stderr string // the end of its standard error, as Stream.Stderr gives it
}

// Error is one line: the status or signal, and what the command said last.
func (e *ExitError) Error() string {
	how := fmt.Sprintf("exited with status %d", e.Status)
	if e.Signal != "" {
		how = "was ended by signal " + e.Signal
	}
	if e.Stderr != "" {
		how += ": " + e.Stderr
	}
	return "remote command " + how
}

// clean makes text that came from elsewhere fit for one line of a terminal: whatever is not printable, and every run
// of spaces, becomes one space.
func clean(text string) string {
	unprintable := func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "\uFFFD"), unprintable), " ")
}
