package agenthost

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/syslog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"georep/status"
	"georep/volume"
)

// Event is one line of the audit log. Texts come from whoever logged in: they are shown only
// through status.Printable. Fields are added, never renamed: the system's log and scripts read
// them.
type Event struct {
	Time    time.Time `json:"time"`
	Event   string    `json:"event"` // one of the kinds below
	Slave   string    `json:"slave"` // a volume's name, or a path
	Master  string    `json:"master"`
	Session string    `json:"session"`
	Login   string    `json:"login"`            // user, and the key where sshd tells it
	From    string    `json:"from,omitempty"`   // address and port
	Force   bool      `json:"force,omitempty"`  // the slave was to be taken over
	Parked  int64     `json:"parked,omitempty"` // entries that were taken out of the tree since the last line
	Lost    string    `json:"not_kept,omitempty"`
	Reason  string    `json:"reason,omitempty"`
}

// Kinds of events.
const (
	Began   = "began"   // a master's worker has the slave open
	Looks   = "looks"   // a verification began
	Refused = "refused" // the login may not have what it asked for, or the slave cannot be used
	Purged  = "purged"  // entries were taken out of the tree
	Kept    = "kept"    // what was removed was not deleted as the master asked
	Hook    = "hook"    // the policy's hook fails, or what is to be told to it
	Full    = "full"    // the slave takes nothing more: a limit of its policy is reached
	Ended   = "ended"

	Promoted = "promoted" // the slave was made the writable side, on its own host
	Demoted  = "demoted"  // it was given back to its master
)

// maxAudit is the size in bytes at which the log is put aside; one older log is kept.
const maxAudit = 1 << 20

// audit writes events to a file and to the system's log. It never keeps replication from going on: what cannot be written
// is told once to the agent's own log.
type audit struct {
	path   string
	system *syslog.Writer // nil where there is none
	fail   func(error)
}

// path may not be there yet. fail is called at most once, with what kept an event from being
// written.
func newAudit(path string, fail func(error)) *audit {
	// Without a log daemon the file alone has it.
	system, _ := syslog.New(syslog.LOG_DAEMON|syslog.LOG_NOTICE, "georep-agent")
	return &audit{path: path, system: system, fail: fail}
}

// Record writes an event that is no master's doing: an operator's on this host. The volume is empty for slaves that are none.
func Record(s *volume.Store, name string, e Event) {
	path := s.AgentLog()
	if name != "" {
		path = s.Runtime(name).AgentLog
	}
	a := newAudit(path, nil)
	a.write(e)
	a.close()
}

// write stamps the time, and writes to both logs. It returns when the file has the line.
func (a *audit) write(e Event) {
	e.Time = time.Now().UTC()
	line, err := json.Marshal(e)
	if err == nil {
		err = a.append(append(line, '\n'))
	}
	if err != nil && a.fail != nil {
		a.fail(fmt.Errorf("write the audit log: %w", err))
		a.fail = nil
	}
	if a.system != nil {
		// A daemon that is away for a moment is no reason to stop.
		_ = a.system.Notice(e.String())
	}
}

// append adds a line. The lock keeps agents apart that run at the same time, so that none writes to
// a log that was put aside. Each line is one write to a file that is opened for it, so a log that
// was put aside is never written to.
func (a *audit) append(line []byte) error {
	if err := os.MkdirAll(filepath.Dir(a.path), 0o700); err != nil {
		return err
	}
	lock, err := os.OpenFile(a.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	if info, err := os.Stat(a.path); err == nil && info.Size()+int64(len(line)) > maxAudit {
		if err := os.Rename(a.path, a.path+".1"); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(a.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(line)
	return errors.Join(err, f.Close())
}

// close lets go of the system's log.
func (a *audit) close() {
	if a.system != nil {
		_ = a.system.Close()
	}
}

// String is the event as the system's log has it: fields as NAME=value, nothing raw of what others said.
func (e Event) String() string {
	s := fmt.Sprintf("%s: slave=%s master=%s session=%s login=%q", e.Event, status.Printable(e.Slave), e.Master, e.Session, e.Login)
	if e.From != "" {
		s += " from=" + status.Printable(e.From)
	}
	if e.Force {
		s += " force"
	}
	if e.Parked > 0 {
		s += fmt.Sprintf(" parked=%d", e.Parked)
	}
	if e.Lost != "" {
		s += fmt.Sprintf(" not_kept=%q", e.Lost)
	}
	if e.Reason != "" {
		s += fmt.Sprintf(" reason=%q", e.Reason)
	}
	return s
}

// ReadAudit gives the lines of an audit log, oldest first. A log that is not there is empty; a line
// that a crash cut is left out. It takes no lock, so it may miss a line that is being written.
func ReadAudit(path string) ([]Event, error) {
	var events []Event
	for _, file := range []string{path + ".1", path} {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return events, err
		}
		events, err = readEvents(f, events)
		if err := errors.Join(err, f.Close()); err != nil {
			return events, fmt.Errorf("read %s: %w", file, err)
		}
	}
	return events, nil
}
