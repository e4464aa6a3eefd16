package status

import (
	"encoding/json"
	"time"
	"unicode/utf8"
)

// State is a session's state, in GlusterFS's words.
type State string

// The states.
const (
	Created      State = "Created"         // never started
	Initializing State = "Initializing..." // started, the worker is not in order yet
	Active       State = "Active"          // replicating
	Passive      State = "Passive"         // another worker of the same session replicates
	Faulty       State = "Faulty"          // not replicating; Reason says why; tried again unless it says otherwise
	Paused       State = "Paused"          // on the operator's word
	Stopped      State = "Stopped"         // on the operator's word
	Inconsistent State = "inconsistent"    // parts of the session are in different states
)

// Crawl says how the worker finds changes.
type Crawl string

// The ways.
const (
	NoCrawl        Crawl = "N/A"
	HybridCrawl    Crawl = "Hybrid Crawl"    // comparing xtimes from the root
	ChangelogCrawl Crawl = "Changelog Crawl" // following hints
)

// Time is a time.Time that is null in JSON while it is zero.
type Time struct{ time.Time }

// MarshalJSON writes RFC 3339 in UTC, or null.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return t.UTC().MarshalJSON()
}

// UnmarshalJSON reads RFC 3339, null or "".
func (t *Time) UnmarshalJSON(b []byte) error {
	if s := string(b); s == "null" || s == `""` {
		*t = Time{}
		return nil
	}
	return json.Unmarshal(b, &t.Time)
}

// Pending counts what the slave lacks, as far as the crawl has seen.
type Pending struct {
	Entries int64 `json:"entries"` // known to differ: to be made, changed, moved or removed
	Files   int64 `json:"files"`   // whose content is to be sent
	Bytes   int64 `json:"bytes"`   // of that content
	Meta    int64 `json:"meta"`    // whose attributes alone are to be set
}

// Synced counts what was applied since the monitor began.
type Synced struct {
	Crawls int64 `json:"crawls"` // from the root, or of what hints named; one that finds nothing new counts too
	// What was shipped: files whose content was sent, whole or as a difference.
	Files        int64 `json:"files"`
	BytesWire    int64 `json:"bytes_wire"`    // sent and received
	BytesContent int64 `json:"bytes_content"` // of the files' content
	// Renames are entries that the slave had and that were put in their new place; Purges are those that were parked as
	// stale.
	Renames int64 `json:"renames"`
	Purges  int64 `json:"purges"`
}

// Plus adds two counts.
func (s Synced) Plus(o Synced) Synced {
	return Synced{
		Crawls: s.Crawls + o.Crawls, Files: s.Files + o.Files, BytesWire: s.BytesWire + o.BytesWire,
		BytesContent: s.BytesContent + o.BytesContent, Renames: s.Renames + o.Renames, Purges: s.Purges + o.Purges,
	}
}

// Failure is a path that is held back until the operation succeeds.
type Failure struct {
	Path  string // below the volume's root; any bytes
	Op    string
	Error string
	Since Time
}

// failureJSON keeps a path that is not UTF-8 a second time, as bytes, since JSON cannot carry it.
type failureJSON struct {
	Path  string `json:"path"`
	Op    string `json:"op"`
	Error string `json:"error"`
	Since Time   `json:"since"`
	Bytes []byte `json:"path_bytes,omitempty"`
}

// MarshalJSON adds path_bytes, in base64, only where the path is not UTF-8.
func (f Failure) MarshalJSON() ([]byte, error) {
	j := failureJSON{Path: f.Path, Op: f.Op, Error: f.Error, Since: f.Since}
	if !utf8.ValidString(f.Path) {
		j.Bytes = []byte(f.Path)
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON wrote; the path comes back byte for byte.
func (f *Failure) UnmarshalJSON(b []byte) error {
	var j failureJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*f = j.failure()
	return nil
}

func (j *failureJSON) failure() Failure {
	f := Failure{Path: j.Path, Op: j.Op, Error: j.Error, Since: j.Since}
	if len(j.Bytes) > 0 {
		f.Path = string(j.Bytes)
	}
	return f
}

// Waiting is a file that changes again and again, or a large one on its way: what the slave has of it is as old as its first
// change since.
type Waiting struct {
	Path  string // below the volume's root; any bytes
	Since Time
	Large bool // it is compared, or on its way, beside all else
}

// waitingJSON keeps a path that is not UTF-8 as failureJSON does.
type waitingJSON struct {
	Path  string `json:"path"`
	Since Time   `json:"since"`
	Large bool   `json:"large,omitempty"`
	Bytes []byte `json:"path_bytes,omitempty"`
}

// MarshalJSON adds path_bytes, in base64, only where the path is not UTF-8.
func (w Waiting) MarshalJSON() ([]byte, error) {
	j := waitingJSON{Path: w.Path, Since: w.Since, Large: w.Large}
	if !utf8.ValidString(w.Path) {
		j.Bytes = []byte(w.Path)
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON wrote; the path comes back byte for byte.
func (w *Waiting) UnmarshalJSON(b []byte) error {
	var j waitingJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*w = Waiting{Path: j.Path, Since: j.Since, Large: j.Large}
	if len(j.Bytes) > 0 {
		w.Path = string(j.Bytes)
	}
	return nil
}

// How a session stands to its objective.
const (
	ObjectiveMet    = "met"
	ObjectiveMissed = "missed"
)

// MaxFailures is how many failures a status lists; FailuresTotal counts them all.
const MaxFailures = 100

// Checkpoint is a moment on the master, and whether the slave has everything up to it.
type Checkpoint struct {
	Name        string `json:"name"`
	Time        Time   `json:"time"`
	Completed   bool   `json:"completed"`
	CompletedAt Time   `json:"completed_at"` // zero while it is not
	// Unseen: but for what HiddenWriters wrote without an event.
	Unseen bool `json:"but_for_hidden_writers,omitempty"`
}

// Has tells whether the slave durably has everything that the master had at t, also what was written without an event by
// somebody whose open files cannot be seen.
func (s *Status) Has(t time.Time) bool {
	return s.LastSynced.After(t) && s.LastSynced.After(s.HiddenAt.Time)
}

// Rates is how fast the worker goes, averaged over the last ten seconds (see Window).
type Rates struct {
	Files        float64 `json:"files_per_second"`
	BytesContent float64 `json:"bytes_content_per_second"`
	BytesWire    float64 `json:"bytes_wire_per_second"`
}

// Status is a session's state at one moment. The value is a copy; Failures is shared and not to be written to.
type Status struct {
	Master     string `json:"master"` // the volume's name
	Slave      string `json:"slave"`
	State      State  `json:"status"`
	Crawl      Crawl  `json:"crawl_status"`
	LastSynced Time   `json:"last_synced"` // the slave durably has all that the master had then; zero: never
	// LagSeconds is the age of the oldest change that is not on the slave, or that nobody could see yet; 0 in step. It means
	// nothing, and is null in the JSON, while LastSynced is zero: of a slave that never was in step nobody can say it.
	LagSeconds    float64   `json:"lag_seconds"`
	Pending       Pending   `json:"pending"`
	Synced        Synced    `json:"synced"`
	Failures      []Failure `json:"failures"`
	Reason        string    `json:"reason"` // one line, when Faulty, or when it waits for its window
	WorkerPid     int       `json:"worker_pid"`
	Marker        string    `json:"marker"`                 // where changes are learnt from: fanotify, inotify or scan
	MarkerWaits   string    `json:"marker_waits,omitempty"` // why LastSynced stands still though nothing is held back
	Unmarked      []string  `json:"unmarked,omitempty"`     // the latest entries that take no mark, each with the reason
	FailuresTotal int       `json:"failures_total"`
	Waiting       []Waiting `json:"waiting,omitempty"` // files that change again and again, and are shipped a little later
	WaitingTotal  int       `json:"waiting_total,omitempty"`
	Checkpoint    string    `json:"checkpoint"` // "N/A", or of the newest whether it is complete
	Stime         uint64    `json:"stime"`      // an xtime.Time: the slave root's stamp; 0: none
	Rates         Rates     `json:"progress"`
	WaitsUntil    Time      `json:"waits_until,omitzero"`     // outside of its windows: when the next one begins
	HiddenWriters string    `json:"hidden_writers,omitempty"` // why writes that raise no event may stay unseen for a while
	// HiddenAt is when HiddenWriters was not empty last. What they wrote before may be missing though LastSynced is later.
	HiddenAt Time `json:"hidden_writers_at,omitzero"`
	// Checkpoints are the session's, oldest first. Whoever reads the status fills them in.
	Checkpoints []Checkpoint `json:"checkpoints,omitempty"`
	NotKept     string       `json:"not_kept,omitempty"`     // what the slave's files cannot keep, as far as it was met
	SlavePolicy string       `json:"slave_policy,omitempty"` // what the policy of the slave's host changes, whatever the master has
	Filter      string       `json:"filter,omitempty"`       // what is left out, summed up; "" for nothing
	Confined    string       `json:"confined,omitempty"`     // what confines the slave's agent and the marker
	// ETASeconds is how long the first sync still takes if it goes on as in the last seconds; 0, and absent from the
	// JSON, when that is not known or it is over.
	ETASeconds float64 `json:"eta_seconds,omitempty"`
	Restarts   int     `json:"worker_restarts"` // since the monitor began
	StateSince Time    `json:"state_since"`
	Updated    Time    `json:"updated"` // when this was written
	MonitorPid int     `json:"monitor_pid"`
	// ObjectiveSeconds is the session's max-lag, 0 for none, and Objective how it stands to that since ObjectiveSince: "" while
	// that is not judged, which is so while the session is paused or stopped by the operator.
	ObjectiveSeconds float64 `json:"objective_seconds,omitempty"`
	Objective        string  `json:"objective,omitempty"`
	ObjectiveSince   Time    `json:"objective_since,omitzero"`
	// QueueOverflows is how often the kernel dropped events since the marker was started: it scans for what it missed then.
	QueueOverflows int64 `json:"queue_overflows,omitempty"`
	FinalReason    bool  `json:"reason_final"` // the reason needs the operator; it is retried at the slowest pace only
	Clock
}

// New returns the status of a session that was never started.
func New(master, slave string) Status {
	return Status{Master: master, Slave: slave, State: Created, Crawl: NoCrawl, Checkpoint: "N/A"}
}

// MarshalJSON writes failures as [] where there are none, and a lag that is not known as null.
func (s Status) MarshalJSON() ([]byte, error) { return json.Marshal(s.plain()) }

// plain has what is written, without a MarshalJSON of its own: encoding/json copies and checks what such a method returns.
type plain Status

// written is plain with a lag that may be null.
type written struct {
	*plain
	Lag *float64 `json:"lag_seconds"`
}

func (s Status) plain() written {
	if s.Failures == nil {
		s.Failures = []Failure{}
	}
	w := written{plain: (*plain)(&s)}
	if !s.LastSynced.IsZero() {
		w.Lag = &s.LagSeconds
	}
	return w
}

// stored is plain with the failures as they are in the file: encoding/json parses what an UnmarshalJSON takes twice, and a status may have
// a hundred of them.
type stored struct {
	*plain
	Failures []failureJSON `json:"failures"`
}

// parse reads what MarshalJSON wrote.
func parse(text []byte) (s Status, err error) {
	in := stored{plain: (*plain)(&s)}
	err = json.Unmarshal(text, &in)
	if in.Failures != nil {
		s.Failures = make([]Failure, len(in.Failures))
	}
	for i := range in.Failures {
		s.Failures[i] = in.Failures[i].failure()
	}
	return s, err
}
