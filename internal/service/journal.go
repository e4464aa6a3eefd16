package service

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// The ids of the kinds of messages that an operator may want to find, or be told of: journalctl MESSAGE_ID=... Each is
// for good. docs/operating.md lists them.
const (
	idStatus  = "5a0e0b8e2c1f4d0c9a1d6f1a6f6f3c01" // a session's status changed
	idStands  = "5a0e0b8e2c1f4d0c9a1d6f1a6f6f3c02" // replication stands still
	idGoesOn  = "5a0e0b8e2c1f4d0c9a1d6f1a6f6f3c03" // replication goes on
	idProcess = "5a0e0b8e2c1f4d0c9a1d6f1a6f6f3c04" // a process was started, or ended
	idNotKept = "5a0e0b8e2c1f4d0c9a1d6f1a6f6f3c05" // the slave cannot keep something of an entry
	idHeld    = "5a0e0b8e2c1f4d0c9a1d6f1a6f6f3c06" // an entry is held back
	idFreed   = "5a0e0b8e2c1f4d0c9a1d6f1a6f6f3c07" // an entry is held back no more
)

// kinds tells by the text of a message what kind it is of.
var kinds = map[string]string{
	"status changed":                idStatus,
	"replication stands still":      idStands,
	"replication goes on":           idGoesOn,
	"monitor started":               idProcess,
	"monitor ended":                 idProcess,
	"worker started":                idProcess,
	"the worker ends":               idProcess,
	"marker started":                idProcess,
	"the marker ended":              idProcess,
	"an entry is held back":         idHeld,
	"an entry is held back no more": idFreed,
	"the slave's file system cannot keep something of this entry": idNotKept,
}

// Journal writes lines of JSON log to the systemd journal, with their fields: SESSION and ENTRY,
// and what else a line has as GEOREP_NAME. What is no such line becomes a message as it is. Lost is
// what the journal did not take: nobody waits for it. Its methods may be called from any goroutine.
type Journal struct {
	// Session names the session that the lines are of, "MASTER SLAVE"; "" for the service itself.
	Session string
	// Send is journal.Send, but in tests.
	Send func(message string, priority journal.Priority, vars map[string]string) error
}

// NewJournal is for the lines of a session.
func NewJournal(session string) *Journal { return &Journal{Session: session, Send: journal.Send} }

// JournalTaken tells whether standard error of this process leads to the journal: it is a service's.
func JournalTaken() bool {
	taken, err := journal.StderrIsJournalStream()
	return err == nil && taken && journal.Enabled()
}

var _ io.Writer = (*Journal)(nil)

// Write takes one line. It never fails: a log that stood still would hold up what is logged.
func (j *Journal) Write(line []byte) (int, error) {
	vars := map[string]string{"SYSLOG_IDENTIFIER": "georep"}
	if j.Session != "" {
		vars["SESSION"] = j.Session
	}
	fields := map[string]any{}
	if json.Unmarshal(line, &fields) != nil {
		_ = j.Send(strings.TrimSpace(string(line)), journal.PriInfo, vars)
		return len(line), nil
	}
	message, _ := fields["message"].(string)
	level, _ := fields["level"].(string)
	if id := kinds[message]; id != "" {
		vars["MESSAGE_ID"] = id
	}
	for name, value := range fields {
		if name = fieldName(name); name != "" {
			vars[name] = text(value)
		}
	}
	_ = j.Send(whole(message, fields), priority(level), vars)
	return len(line), nil
}

// fieldName is what a field of the log is called in the journal; "" for what the journal has already.
func fieldName(name string) string {
	switch name {
	case "message", "level", "time":
		return ""
	case "path":
		return "ENTRY"
	}
	up := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= '0' && r <= '9', r >= 'A' && r <= 'Z':
			return r
		}
		return '_'
	}, name)
	return "GEOREP_" + up
}

// text is a field's value as people read it.
func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// whole is the message with what an operator wants to see of the fields: journalctl shows no
// others. The order is fixed, so that lines of one kind read alike.
func whole(message string, fields map[string]any) string {
	for _, name := range []string{"session", "status", "path", "reason", "error", "how"} {
		if v := fields[name]; v != nil && v != "" {
			message += ": " + text(v)
		}
	}
	return message
}

// priority is the journal's for a level of ours; what is not known is information.
func priority(level string) journal.Priority {
	switch level {
	case "trace", "debug":
		return journal.PriDebug
	case "warn":
		return journal.PriWarning
	case "error":
		return journal.PriErr
	case "fatal", "panic":
		return journal.PriCrit
	}
	return journal.PriInfo
}
