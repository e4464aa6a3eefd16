package doctor

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"georep/internal/connect"
	"georep/monitor"
	"georep/slave"
	"georep/slave/sshconn"
	"georep/status"
)

// The stages of the way to the slave, in order.
const (
	atConfiguration = "ssh configuration"
	atConnection    = "connection"
	atHostKey       = "host key"
	atLogin         = "login"
	atLine          = "line"
	atAgent         = "remote program"
	atSlave         = "slave"
)

// stages is the order in which they are gone through over SSH.
var stages = []string{atConfiguration, atConnection, atHostKey, atLogin, atLine, atAgent, atSlave}

// limit bounds the whole way: longer than any single stage may take.
const limit = 2 * time.Minute

// slave goes the way to the slave as a session would, and looks at what is there.
func (x *examination) slave(ctx context.Context) {
	p := place{x, OfSlave}
	if x.Known {
		p.session()
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c := connect.Config{Session: *x.Session, Volume: x.Volume, DryRun: true, Version: x.Version, Logger: x.Logger,
		Wire: new(atomic.Int64)}
	if x.Known {
		c.Store = x.Store
	}
	if !x.Session.Slave.Local() {
		line, err := connect.Measure(ctx, c)
		if err != nil {
			p.stopped(stageOf(err), err)
			return
		}
		p.measured(line)
	}
	tree, err := connect.Inspect(ctx, c)
	switch {
	case errors.Is(err, slave.ErrNoVolume) && x.Session.Slave.Volume == "":
		p.passed(atAgent)
		p.note(atSlave, "%q is not there yet; georep create or start makes it", x.Session.Slave.Path)
		return
	case errors.Is(err, slave.ErrNotEmpty), errors.Is(err, slave.ErrForeign), errors.Is(err, slave.ErrPromoted):
		p.passed(atAgent)
		p.problem(atSlave, "", "%v", err)
		return
	case err != nil:
		p.stopped(stageOf(err), err)
		return
	}
	defer tree.Close()
	p.found(tree.Info())
}

// session tells what its monitor says.
func (p place) session() {
	const check = "session"
	st, err := monitor.Status(p.x.Store, *p.x.Session)
	if err != nil {
		p.problem(check, "", "%v", err)
		return
	}
	p.x.lacks = st.Pending.Bytes
	switch st.State {
	case status.Faulty, status.Inconsistent:
		p.problem(check, "", "%s: %s", st.State, st.Reason)
	case status.Created, status.Stopped, status.Paused:
		p.note(check, "%s", st.State)
	default:
		p.ok(check, "%s, last synced %s", st.State, synced(st))
	}
	if n := st.FailuresTotal; n > 0 {
		first := st.Failures[0]
		p.warn(check, "georep status --detail lists them", "%d entries are held back, such as %q: %s", n, first.Path, first.Error)
	}
}

func synced(st status.Status) string {
	if st.LastSynced.IsZero() {
		return "never yet"
	}
	return st.LastSynced.Local().Format(time.DateTime + " MST")
}

// stageOf tells at which stage an error of connect came up.
func stageOf(err error) string {
	for _, s := range []struct {
		stage string
		of    []error
	}{
		{atConfiguration, []error{sshconn.ErrConfig}},
		{atHostKey, []error{sshconn.ErrHostKeyUnknown, sshconn.ErrHostKeyChanged, sshconn.ErrHostKeyRevoked}},
		{atLogin, []error{sshconn.ErrAuth}},
		{atConnection, []error{sshconn.ErrUnreachable, sshconn.ErrIncompatible}},
		{atLine, []error{connect.ErrMeasure}},
		{atAgent, []error{connect.ErrNoAgent, connect.ErrNoAnswer, connect.ErrAgentEnded, sshconn.ErrExec, slave.ErrVersion}},
	} {
		for _, e := range s.of {
			if errors.Is(err, e) {
				return s.stage
			}
		}
	}
	return atSlave
}

// stopped tells that the stages before one were passed, and those behind it not reached.
func (p place) stopped(stage string, err error) {
	behind := false
	for _, s := range p.remaining() {
		switch {
		case s == stage:
			p.problem(s, "", "%v", err)
			behind = true
		case behind:
			p.x.tell(Finding{Place: p.name, Check: s, Level: Skipped, Found: "not reached"})
		default:
			p.passed(s)
		}
	}
}

// remaining are the stages of this session of which nothing was told yet.
func (p place) remaining() []string {
	if p.x.Session.Slave.Local() {
		return stages[len(stages)-1:]
	}
	return stages[p.x.passed:]
}

// passed tells that a stage was, and those before it of which nothing was told.
func (p place) passed(stage string) {
	if p.x.Session.Slave.Local() {
		return // nothing lies before the slave itself
	}
	for _, s := range p.remaining() {
		p.x.passed++
		p.ok(s, "in order")
		if s == stage {
			return
		}
	}
}

// slow is a rate below which a first sync takes long, in bytes a second.
const slow = 1 << 20

// measured tells of the line.
func (p place) measured(l connect.Line) {
	p.passed(atLogin)
	p.x.passed++
	text := fmt.Sprintf("%s (%s): login %v, round trip %v, up to %s/s there", l.Addr, l.Server, l.Login.Round(time.Millisecond),
		l.RoundTrip.Round(10*time.Microsecond), status.Bytes(int64(l.Rate)))
	if l.Rate < slow {
		p.warn(atLine, "compression=always may help; see whether something else fills the line", "%s", text)
		return
	}
	p.ok(atLine, "%s", text)
}

// Least room on the slave.
const (
	roomLow    = 1 << 30
	entriesLow = 10_000
)

// found tells of the slave itself.
func (p place) found(i slave.Info) {
	if !p.x.Session.Slave.Local() {
		p.x.passed = len(stages)
		p.ok(atAgent, "%s", agentText(p.x, i))
	}
	// The fenced master may look, and nothing else: to look is all that a doctor does, so nothing has been refused until here.
	if i.Promoted != "" {
		p.problem(atSlave, "see docs/recovery.md for the ways back", "%q was %s: it takes nothing from this master any more", i.Path, i.Promoted)
	} else {
		p.ok(atSlave, "%q, records in %s.* extended attributes", i.Path, i.Namespace)
	}
	p.room(i)
	if !i.Root && p.x.agentless() {
		p.warn("rights", "give the account root's rights there, or use georep's agent", "this account is not root's: owners and device nodes cannot be kept")
	} else if !i.Root {
		p.warn("rights", "run the agent as root, or allow owner and fake-owner in the volume's policy",
			"the far end does not run as root: owners and device nodes cannot be kept")
	}
	if policy := i.Limits.Policy.String(); policy != "" {
		p.note("policy", "the slave's host changes what it is sent: %s", policy)
	}
}

// agentless tells whether nothing of ours runs at the far end.
func (x *examination) agentless() bool {
	o, err := x.Session.Options()
	return x.Session.Slave.SFTP || err == nil && o.Agentless && !x.Session.Slave.Serve
}

// agentText is what is known of the program at the far end.
func agentText(x *examination, i slave.Info) string {
	if x.agentless() {
		return "none is used: SFTP"
	}
	text := "georep " + i.Version
	if i.Version != x.Version {
		text += ", here " + x.Version
	}
	if i.Confined != "" {
		text += "; confined by " + i.Confined
	}
	return text
}

// room compares what the slave has left with what it lacks.
func (p place) room(i slave.Info) {
	const check = "room"
	switch {
	case i.FreeBytes == 0 && i.FreeFiles == 0: // an older agent, and an SFTP server without statvfs, do not tell
		p.warn(check, "see there, by df", "nobody tells how much is free: it is full, or its program cannot say")
	case i.FreeBytes < p.x.lacks:
		p.problem(check, "make room there", "%s are free, and %s are still to come", status.Bytes(i.FreeBytes), status.Bytes(p.x.lacks))
	case i.FreeFiles > 0 && i.FreeFiles < entriesLow:
		p.warn(check, "remove files there", "there is room for only %d files", i.FreeFiles)
	case i.FreeBytes < roomLow:
		p.warn(check, "make room there", "only %s are free", status.Bytes(i.FreeBytes))
	case i.FreeFiles > 0:
		p.ok(check, "%s and %d files are free", status.Bytes(i.FreeBytes), i.FreeFiles)
	default:
		p.ok(check, "%s are free", status.Bytes(i.FreeBytes))
	}
}
