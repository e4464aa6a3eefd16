package agenthost

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"georep/marker/xtime"
	"georep/slave/disk"
	"georep/status"
	"georep/volume"
)

// Incoming is a session of another host that replicates into a volume, or a directory, of this one. Texts come from whoever logged
// in: they are shown only through status.Printable.
type Incoming struct {
	Slave   string `json:"slave"` // the volume's name, or the directory
	Path    string `json:"path"`
	Master  string `json:"master"`  // uuid of the master volume
	Session string `json:"session"` // uuid
	Login   string `json:"login"`
	From    string `json:"from"` // address and port
	// Connected tells whether its agent has the slave open now; Since is when that began, or ended.
	Connected  bool        `json:"connected"`
	Since      status.Time `json:"since"`
	LastSynced status.Time `json:"last_synced"` // the slave has all that the master had then, by the stamp of its root
	// Promoted is when the slave was made the writable side, so that this session is refused; null where it was not.
	Promoted status.Time `json:"promoted"`
	Refused  string      `json:"refused"` // why it was turned away last, or takes nothing more, where that is how it stands
}

// AllIncoming lists the sessions that the audit logs of this host know of, by slave. What could not be read is in the error; the rest
// is listed all the same.
func AllIncoming(s *volume.Store) ([]Incoming, error) {
	var out []Incoming
	volumes, err := s.Volumes()
	errs := []error{err}
	for _, v := range volumes {
		events, err := ReadAudit(s.Runtime(v.Name).AgentLog)
		errs = append(errs, ignoreGone(err))
		out = append(out, incoming(events, v.Path)...)
	}
	events, err := ReadAudit(s.AgentLog())
	errs = append(errs, ignoreGone(err))
	out = append(out, incoming(events, "")...)
	lookAt(out)
	slices.SortFunc(out, func(a, b Incoming) int {
		return strings.Compare(a.Slave+"\x00"+a.Session, b.Slave+"\x00"+b.Session)
	})
	return out, errors.Join(errs...)
}

// ignoreGone makes a log that was removed meanwhile an empty one.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// incoming makes of events, oldest first, how each session stands. Path is the volume's; "" where the slaves are paths themselves.
func incoming(events []Event, path string) []Incoming {
	byID := map[string]*Incoming{}
	for i := range events {
		e := &events[i]
		id := e.Slave + "\x00" + e.Session
		in := byID[id]
		if in == nil {
			in = &Incoming{Slave: e.Slave, Path: path, Session: e.Session}
			if path == "" {
				in.Path = e.Slave
			}
			byID[id] = in
		}
		in.take(e)
	}
	var out []Incoming
	for _, in := range byID {
		if in.Master == "" {
			continue // it was only looked at
		}
		out = append(out, *in)
	}
	return out
}

// take goes on with one event. Kinds that say nothing of how it stands are passed over.
func (in *Incoming) take(e *Event) {
	switch e.Event {
	case Began:
		in.Refused = ""
	case Refused, Full:
		in.Refused = e.Reason
	case Ended:
	default:
		return
	}
	in.Master, in.Login, in.From, in.Since = e.Master, e.Login, e.From, status.Time{Time: e.Time}
}

// lookPatience is how long the slaves' file systems have to answer, all together: one that hangs must not keep an operator from seeing how
// the rest stands.
const lookPatience = 3 * time.Second

// lookAt asks all slaves at once. Answers that come after lookPatience are dropped.
func lookAt(list []Incoming) {
	type answer struct {
		of int
		in Incoming
	}
	answers, open := make(chan answer, len(list)), map[int]bool{}
	for i, in := range list {
		open[i] = true
		go func() { in.look(); answers <- answer{i, in} }()
	}
	late := time.After(lookPatience)
	for len(open) > 0 {
		select {
		case a := <-answers:
			list[a.of] = a.in
			delete(open, a.of)
		case <-late:
			for i := range open {
				list[i].silent()
			}
			return
		}
	}
}

// silent is how it stands where the file system says nothing.
func (in *Incoming) silent() {
	if in.Refused == "" {
		in.Refused = "the file system of " + in.Path + " does not answer: see whether it is mounted, and its server or disk works"
	}
}

// look asks the slave itself: an agent that was killed has written no last line.
func (in *Incoming) look() {
	master, err := xtime.ParseUUID(in.Master)
	if err != nil || !strings.HasPrefix(in.Path, "/") {
		return
	}
	at, err := disk.Look(in.Path, master)
	if err != nil {
		if in.Refused == "" {
			in.Refused = err.Error()
		}
		return
	}
	in.Connected = at.Session == in.Session
	if p := &at.Promoted; p.Holds() {
		in.Promoted = status.Time{Time: p.At}
	}
	in.LastSynced = status.Time{Time: at.Stime}
	if at.Stime.After(time.Now()) {
		in.LastSynced = status.Time{}
	}
}
