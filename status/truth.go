package status

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// silence is how long a monitor may leave its status alone; it writes every 5 seconds.
const silence = time.Minute

// Session is what Load needs to know of a session.
type Session struct {
	// Master and Slave are as the registry has them; the files are those of volume.Files.
	Master, Slave string
	StatusFile    string
	PidFile       string
	Started       bool // the operator wants it to run
}

// Load reads a session's status and returns what is true of it now. A session without a status file is Created. An
// error means that a file is there and cannot be read; the Status then still names the session.
func Load(s Session) (Status, error) { return new(Reader).Load(s) }

// Reader loads the status of one session again and again. It is for one goroutine.
type Reader struct {
	file fs.FileInfo // as it was read; nil: not yet
	st   Status
}

// read has what the file says, which costs a system call where it is the one that was read before: monitors replace it.
func (r *Reader) read(path string) (Status, error) {
	file, err := os.Stat(path)
	if err == nil && r.file != nil && os.SameFile(file, r.file) && file.ModTime().Equal(r.file.ModTime()) && file.Size() == r.file.Size() {
		return r.st, nil
	}
	r.file = nil
	st, rerr := Read(path)
	if err == nil && rerr == nil {
		r.file, r.st = file, st // one that was replaced since is read again
	}
	return st, rerr
}

// Load is the function of that name. What the results refer to is shared, and not to be written to.
func (r *Reader) Load(s Session) (Status, error) {
	pid, running := Running(s.PidFile)
	st, err := r.read(s.StatusFile)
	if errors.Is(err, fs.ErrNotExist) {
		st, err = New(s.Master, s.Slave), nil
	}
	// The registry knows the names; a status file that was copied does not.
	st.Master, st.Slave = s.Master, s.Slave
	return st.Now(View{Time: time.Now(), Pid: pid, Running: running, Started: s.Started}), err
}

// View is what a reader knows beside the status file.
type View struct {
	Time    time.Time
	Pid     int  // of the monitor, 0 where unknown
	Running bool // the monitor's lock is held
	Started bool // the operator wants the session to run
}

// Now turns what the monitor wrote last into what is true now: a file that says Active is not believed when no monitor
// runs, and the lag goes on growing while nobody replicates.
func (s Status) Now(v View) Status {
	if s.LastSynced.After(v.Time) {
		s.LastSynced = Time{} // the clock was set back since: what is synced by the new one is not known yet
	}
	if !s.ClockStep.Matters(v.Time, s.LastSynced) {
		s.ClockStep = nil
	}
	switch {
	// A lock that nobody holds outweighs all that the file says.
	case !v.Running:
		s = s.without(v.Started)
	case s.State == Created || s.State == Stopped || v.Pid != 0 && s.MonitorPid != v.Pid:
		s.State, s.Reason, s.MonitorPid, s.WorkerPid = Initializing, "", v.Pid, 0 // it has not written yet
	case v.Time.Sub(s.Updated.Time) > silence:
		s.Reason = fmt.Sprintf("the monitor (pid %d) has said nothing since %s: if it does not come back run georep "+
			"stop and georep start", v.Pid, s.Updated.Local().Format(time.DateTime+" MST"))
		s.State = Faulty
	}
	if s.LagSeconds > 0 { // it was behind, and has said nothing else since
		s.LagSeconds += max(0, v.Time.Sub(s.Updated.Time).Seconds())
	}
	if s.State == Active || s.State == Passive {
		return s
	}
	s.judge(v.Time)
	s.Crawl, s.Rates, s.ETASeconds, s.WaitsUntil = NoCrawl, Rates{}, 0, Time{}
	if !s.LastSynced.IsZero() {
		s.LagSeconds = max(s.LagSeconds, s.age(v.Time).Seconds())
	}
	return s
}

// age is how long ago LastSynced was, steps of the clock left out.
func (s *Status) age(now time.Time) time.Duration {
	return now.Sub(s.LastSynced.Time) - time.Duration(s.ClockMoved*float64(time.Second))
}

// judge is what is true of the objective while no monitor says it.
func (s *Status) judge(now time.Time) {
	behind := s.age(now)
	if s.LastSynced.IsZero() && s.Stime != 0 { // in step once, by a clock that was set back since
		behind = time.Duration(s.LagSeconds * float64(time.Second))
	}
	switch limit := time.Duration(s.ObjectiveSeconds * float64(time.Second)); {
	case s.State == Stopped || s.State == Paused || s.State == Created:
		s.Objective, s.ObjectiveSince = "", Time{}
	case limit > 0 && s.State == Faulty && s.Objective != ObjectiveMissed && behind > limit:
		s.Objective = ObjectiveMissed
		if s.ObjectiveSince = (Time{}); !s.LastSynced.IsZero() {
			s.ObjectiveSince = Time{s.LastSynced.Add(limit)}
		}
	}
}

// without is the status of a session whose monitor does not run. Where it should run, that is trouble for the
// operator, since nothing brings a monitor back but georep start.
func (s Status) without(started bool) Status {
	before := s.State
	s.WorkerPid, s.MonitorPid, s.FinalReason = 0, 0, false
	switch {
	case started:
		s.State = Faulty
		s.Reason = fmt.Sprintf("the monitor is not running (crash or reboot): run georep start %s %s", s.Master, s.Slave)
	case before == Created:
		s.Reason = ""
	default:
		s.State, s.Reason = Stopped, ""
	}
	if s.State != before {
		s.StateSince = s.Updated
	}
	return s
}

// OneLine makes text that came from elsewhere one trimmed line of bounded length.
func OneLine(text string) string {
	const most = 1000
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	text = strings.ToValidUTF8(strings.TrimSpace(text), "\uFFFD")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
