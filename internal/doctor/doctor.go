// Package doctor looks at a host, a master and the way to its slave, and says what is wrong there, stage by stage, and what
// the operator can do. It changes nothing: what it opens on the slave it only inspects, as a comparison does. It may run beside
// the session.
//
// host.go looks at this host, master.go at the directory that is replicated, slave.go at the way to the slave and at what
// is found there.
package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"georep/volume"
)

// Level says how bad a finding is.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Note    Level = "note"    // worth knowing; nothing is to be done
	Warning Level = "warning" // it works, and not as well as it could, or not for long
	Problem Level = "problem" // it does not work
	Skipped Level = "skipped" // an earlier stage has to work first
)

// The places that findings are about.
const (
	OfHost   = "this host"
	OfMaster = "master"
	OfSlave  = "slave"
)

// Finding is what one check found.
type Finding struct {
	Place  string `json:"place"` // OfHost, OfMaster or OfSlave
	Check  string `json:"check"` // a short name of what was looked at
	Level  Level  `json:"level"`
	Found  string `json:"found"`            // one line
	Remedy string `json:"remedy,omitempty"` // what the operator can do, one line; some lines of Found say it themselves
}

// Options say what to look at.
type Options struct {
	Store *volume.Store
	// Volume is the master; zero: this host alone. Registered tells whether it is in the Store: else only its Path is set.
	Volume     volume.Volume
	Registered bool
	// Session leads to the slave; nil: the master alone. Known tells whether it is in the Store.
	Session *volume.Session
	Known   bool
	Version string // of this georep
	Logger  zerolog.Logger
	// Tell is called with each finding as soon as there is one.
	Tell func(Finding)

	patience time.Duration // silence, but in tests
}

// silence is how long a file system of this host has for what is looked at between two findings: a dead NFS server answers nobody, ever.
const silence = 20 * time.Second

// examination is one run. Only its own goroutine uses it.
type examination struct {
	Options
	worst  Level
	lacks  int64 // bytes that the session knows to be still to come
	passed int   // how many stages of the way to the slave were told of
}

// Run looks at all that the options name, and returns the worst level of what it told: OK, Warning or Problem.
func Run(ctx context.Context, o Options) Level {
	x := &examination{Options: o, worst: OK}
	x.host()
	if o.Volume.Path != "" && !x.bounded(OfMaster, o.Volume.Path, (*examination).master) {
		x.Volume.Path = "" // whether the slave lies apart from it cannot be found out
	}
	switch {
	case o.Session == nil:
	case o.Session.Slave.Local():
		x.bounded(OfSlave, o.Session.Slave.Path, func(y *examination) { y.slave(ctx) })
	default:
		x.slave(ctx)
	}
	return x.worst
}

// bounded looks, and returns false where nothing is found for long. What hangs is left behind: nobody can end it.
func (x *examination) bounded(name, path string, look func(*examination)) (answers bool) {
	findings, ended, gone := make(chan Finding), make(chan struct{}), make(chan struct{})
	y := *x
	y.Tell = func(f Finding) {
		select {
		case findings <- f:
		case <-gone:
		}
	}
	go func() { look(&y); close(ended) }()
	patience, last := x.patience, "nothing"
	if patience == 0 {
		patience = silence
	}
	for {
		select {
		case f := <-findings:
			last = f.Check
			x.tell(f)
		case <-ended:
			x.lacks, x.passed = y.lacks, y.passed
			return true
		case <-time.After(patience):
			close(gone)
			place{x, name}.problem("file system", "see whether its server or disk works, or mount it anew",
				"what %q lies on has not answered for %v (the last that was found out: %s)", path, patience, last)
			return false
		}
	}
}

// tell hands a finding on.
func (x *examination) tell(f Finding) {
	f.Found, f.Remedy = oneLine(f.Found), oneLine(f.Remedy)
	if f.Level == Problem || f.Level == Warning && x.worst == OK {
		x.worst = f.Level
	}
	x.Tell(f)
}

// place is where the checks of one file report to.
type place struct {
	x    *examination
	name string
}

func (p place) ok(check, format string, args ...any) {
	p.x.tell(Finding{Place: p.name, Check: check, Level: OK, Found: fmt.Sprintf(format, args...)})
}

func (p place) note(check, format string, args ...any) {
	p.x.tell(Finding{Place: p.name, Check: check, Level: Note, Found: fmt.Sprintf(format, args...)})
}

func (p place) warn(check, remedy, format string, args ...any) {
	p.x.tell(Finding{Place: p.name, Check: check, Level: Warning, Found: fmt.Sprintf(format, args...), Remedy: remedy})
}

func (p place) problem(check, remedy, format string, args ...any) {
	p.x.tell(Finding{Place: p.name, Check: check, Level: Problem, Found: fmt.Sprintf(format, args...), Remedy: remedy})
}

// oneLine keeps what other hosts and programs said on one line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
