// Package report is what a worker and its monitor say to each other over two pipes, one JSON object a line: reports
// from the worker on descriptor 3, commands from the monitor on the worker's standard input. The end of the input
// means that the monitor is gone and that the worker must end. A worker runs Writer.Run from its first moment on,
// before it connects: one that is silent for a minute is taken for hung.
//
// Both ends are of one build as a rule, but a worker may outlive an update of the program: unknown fields and verbs
// are passed over, and a line that makes no sense costs that line alone. writer.go is the worker's end of the
// reports, decoder.go reads both directions.
//
// It owns the format and its bounds. It starts no process, decides nothing, and keeps no descriptor it did not get.
package report

import (
	"georep/status"
)

// FD is the descriptor on which a worker reports.
const FD = 3

// Kind says what a report is.
type Kind string

// The kinds.
const (
	Ready        Kind = "ready"    // connected and surveyed, in order (again); clears a fault
	KindProgress Kind = "progress" // how far it is
	KindFaulty   Kind = "faulty"   // trouble that it lives through, or ends by
	Alive        Kind = "alive"    // nothing to say, but not hung
	KindChanged  Kind = "changed"  // what has become durable on the slave, where a hook wants to know
)

// Progress is how far a worker is.
type Progress struct {
	// Crawl is how the worker finds changes at the moment.
	Crawl status.Crawl `json:"crawl_status,omitempty"`
	// Stime is the slave root's stamp, and LastSynced the newest time of which the slave is known to have everything;
	// they differ, since LastSynced goes on while nothing changes.
	Stime      uint64      `json:"stime,omitempty"` // an xtime.Time
	LastSynced status.Time `json:"last_synced"`
	// LagSeconds is the age of the oldest change that the slave lacks, when the report was made; 0 in step.
	LagSeconds float64        `json:"lag_seconds"`
	Pending    status.Pending `json:"pending"`
	Synced     status.Synced  `json:"synced"` // since this worker began
	// Failures are the paths that are held back, Waiting the files that change faster than they are shipped.
	Failures      []status.Failure `json:"failures,omitempty"`
	FailuresTotal int              `json:"failures_total"` // Failures may list fewer
	Waiting       []status.Waiting `json:"waiting,omitempty"`
	WaitingTotal  int              `json:"waiting_total"` // Waiting may list fewer
	// Marker is where changes are learnt from: fanotify, inotify or scan. Checkpoint is the text that the status
	// shows.
	Marker string `json:"marker,omitempty"`
	// MarkerWaits is why the marker's heartbeat stands still, where it does.
	MarkerWaits string `json:"marker_waits,omitempty"`
	// Unmarked names entries that take no mark, and are compared by ctime: path and reason.
	Unmarked   []string `json:"unmarked,omitempty"`
	Checkpoint string   `json:"checkpoint,omitempty"`
	ETASeconds float64  `json:"eta_seconds,omitempty"` // of a first sync; 0: not known
	NotKept    string   `json:"not_kept,omitempty"`    // what the slave's files cannot keep, as far as it was met
	Policy     string   `json:"policy,omitempty"`      // what the policy of the slave's host changes
	// Confined is what confines the slave's agent, where it has one, and the marker; "" before that is known.
	Confined string `json:"confined,omitempty"`
	// WaitsUntil is when the window begins that the session waits for; zero: it waits for none.
	WaitsUntil status.Time `json:"waits_until,omitzero"`
	// Filter sums up what the session leaves out; "" for nothing.
	Filter string `json:"filter,omitempty"`
	// HiddenWriters is why writes that raise no event may stay unseen for a while.
	HiddenWriters string `json:"hidden_writers,omitempty"`
	// HiddenAt is when that was so last: what was written before, without an event, may be missing though LastSynced is later.
	HiddenAt status.Time `json:"hidden_writers_at,omitzero"`
	// QueueOverflows is how often the kernel dropped events since the marker was started.
	QueueOverflows int64 `json:"queue_overflows,omitempty"`
}

// Changed are paths that have become durable on the slave. They are of any bytes.
type Changed struct {
	All   bool     `json:"all,omitempty"`   // it cannot be said which
	Paths [][]byte `json:"paths,omitempty"` // have changed, come or gone; those of directories end with a slash
	Trees [][]byte `json:"trees,omitempty"` // have come or gone, with all below them
}

// Fault is trouble that keeps the session from replicating.
type Fault struct {
	Reason string `json:"reason"` // one line for the operator: what, why, what to do
	// Refused: a purge is held up until the operator approves it.
	Refused bool `json:"refused,omitempty"`
	Final   bool `json:"final"` // needs the operator (host key, unknown volume, ...): tried at the slowest pace only
}

// Report is one line from the worker. Progress is set for KindProgress, Fault for KindFaulty.
type Report struct {
	Kind     Kind      `json:"kind"`
	Progress *Progress `json:"progress,omitempty"`
	Fault    *Fault    `json:"fault,omitempty"`
	Changed  *Changed  `json:"changed,omitempty"`
}

// Verb is what the monitor asks of a worker.
type Verb string

// The verbs. Unknown ones are to be ignored.
const (
	Look   Verb = "look"   // begin anew, with a look at the slave: its stamps may have been taken off
	Pause  Verb = "pause"  // ship and purge nothing until Resume, keep the connection if it costs nothing
	Resume Verb = "resume" // go on
	Stop   Verb = "stop"   // end soon, as SIGTERM asks too
)

// Command is one line to the worker.
type Command struct {
	Verb Verb `json:"cmd"`
}
