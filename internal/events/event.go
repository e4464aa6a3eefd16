package events

import (
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind says what has happened.
type Kind string

// The kinds. The names are an interface: scripts and hooks go by them.
const (
	StateChanged    Kind = "state"            // State and Reason are new
	Failure         Kind = "failure"          // an entry is held back: Path, Op, Error
	FailureGone     Kind = "failure-gone"     // and is no more: Path, Op
	ObjectiveMissed Kind = "objective-missed" // the slave is further behind than max-lag allows
	ObjectiveMet    Kind = "objective-met"    // and is so no more
	Checkpoint      Kind = "checkpoint"       // the checkpoint Name is complete
	FirstSync       Kind = "first-sync"       // the slave is in step for the first time
	PurgeRefused    Kind = "purge-refused"    // max-delete holds a purge up until georep approve
	QueueOverflow   Kind = "queue-overflow"   // the kernel dropped events: the marker scans for what it missed
	WorkerRestarted Kind = "worker-restarted" // the worker ended by itself, and another is started
	ClockStepped    Kind = "clock-stepped"    // the clock of the master's host was set: Reason
	HookFailed      Kind = "hook-failed"      // the hook Name could not be told, and is tried again
)

// Kinds are all of them, in the order in which they are documented.
func Kinds() []Kind {
	return []Kind{StateChanged, Failure, FailureGone, ObjectiveMissed, ObjectiveMet, Checkpoint, FirstSync, PurgeRefused,
		QueueOverflow, WorkerRestarted, ClockStepped, HookFailed}
}

// Event is one thing that has happened. Fields that do not apply are left out of the JSON. Which
// fields a kind has, Kind says. Time is by the clock of the master's host.
type Event struct {
	Seq     uint64    `json:"seq"` // 1 is the first
	Time    time.Time `json:"time"`
	Kind    Kind      `json:"kind"`
	Master  string    `json:"master"` // the session's
	Slave   string    `json:"slave"`
	State   string    `json:"state,omitempty"` // in the words of status
	Reason  string    `json:"reason,omitempty"`
	Path    string    `json:"-"` // below the volume's root; any bytes
	Op      string    `json:"op,omitempty"`
	Error   string    `json:"error,omitempty"`
	Name    string    `json:"name,omitempty"` // of a checkpoint or hook
	Message string    `json:"message"`        // a sentence for people
}

// eventJSON keeps a path that is not UTF-8 a second time, as bytes, since JSON cannot carry it.
type eventJSON struct {
	plainEvent
	Path  string `json:"path,omitempty"`
	Bytes []byte `json:"path_bytes,omitempty"`
}

// plainEvent is Event without its methods, so that encoding it does not call MarshalJSON again.
type plainEvent Event

// MarshalJSON adds path_bytes, in base64, only where the path is not UTF-8.
func (e Event) MarshalJSON() ([]byte, error) {
	j := eventJSON{plainEvent: plainEvent(e), Path: e.Path}
	j.Time = e.Time.UTC()
	if !utf8.ValidString(e.Path) {
		j.Bytes = []byte(e.Path)
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON wrote; the path comes back byte for byte.
func (e *Event) UnmarshalJSON(b []byte) error {
	var j eventJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*e = Event(j.plainEvent)
	e.Path = j.Path
	if len(j.Bytes) > 0 {
		e.Path = string(j.Bytes)
	}
	return nil
}

// Bounds of what one event takes. A path beyond its bound is left out: a shortened one would name another entry.
const (
	maxText = 2000
	maxPath = 64 << 10
)

// bounded is the event with its texts on one line each and within bounds.
func (e Event) bounded() Event {
	for _, text := range []*string{&e.State, &e.Reason, &e.Op, &e.Error, &e.Name, &e.Message} {
		*text = oneLine(*text)
	}
	if len(e.Path) > maxPath {
		e.Path = ""
	}
	return e
}

// oneLine makes text fit for one line of a log: line breaks become semicolons, and bytes that are
// no UTF-8 the replacement character.
func oneLine(s string) string {
	s = strings.ToValidUTF8(strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "; ").Replace(s)), "\uFFFD")
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return s
}
