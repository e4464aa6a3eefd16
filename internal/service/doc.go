// Package service is georep as one service of a host: it keeps a monitor running for every session that is to run, takes
// orders over a socket in the state directory, and tells systemd how it stands.
//
// What is to run is in the registry (volume.Session.Started), which commands change before they tell the service. So nothing is
// lost where the service ends in between: it reads the registry again when it starts, for each order, when a monitor ends,
// and now and then.
package service

import (
	"errors"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"georep/volume"
)

// ErrRunning: another process is this state directory's service already.
var ErrRunning = errors.New("a georep service runs already")

// ErrAway: the service is ending, or has ended, or is not there yet. What the registry has it does when it runs again.
var ErrAway = errors.New("the georep service takes no orders at the moment")

// Options say what to run. All but Notify and Watchdog have to be set.
type Options struct {
	Store *volume.Store
	// Monitor makes the command line of a session's monitor. The service sets its files and its process group.
	Monitor func(volume.Session) *exec.Cmd
	Log     zerolog.Logger
	// Notify tells the service's manager, in the words of sd_notify(3).
	Notify func(state string)
	// Watchdog is within what time the manager wants to hear that the service lives; 0: it does not ask.
	Watchdog time.Duration

	pace pace // zero but in tests
}

// pace is how long what takes.
type pace struct {
	look      time.Duration // between two looks at the registry that nobody asked for
	first     time.Duration // before a monitor that ended is started again, at first
	most      time.Duration // and at most
	steady    time.Duration // one that ran so long begins anew
	lock      time.Duration // for whoever looks whether a service runs
	farewell  time.Duration // for monitors to end, before they are killed
	statePoll time.Duration // between two looks at how the sessions stand
}

// farewell is longer than a monitor needs to end its worker.
func defaultPace() pace {
	return pace{look: 30 * time.Second, first: time.Second, most: time.Minute, steady: time.Minute,
		lock: 2 * time.Second, farewell: 45 * time.Second, statePoll: 3 * time.Second}
}

// Socket is where the service of a state directory listens.
func Socket(s *volume.Store) string { return filepath.Join(s.Dir(), "run.sock") }

// lockFile is held as long as the service runs.
func lockFile(s *volume.Store) string { return filepath.Join(s.Dir(), "run.lock") }
