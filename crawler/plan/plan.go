// Package plan decides what makes one directory of the slave equal to the master's: two states in, a list of things to
// do out. It does no I/O and reads no clock, so every rule of replication can be tested as a table.
//
// The rules, where the slave has a record of an entry: same kind, same GFID, same xtime is in step, whatever sizes and
// times say; anything else is not. A newer xtime alone does not mean new content (a chmod marks too), so where size and
// mtime agree the contents are compared by hash before anything is sent. Without a record (a slave filled by other
// means) equal size is enough to try the hash. Same name with another GFID is another thing (invariant 8).
package plan

import (
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// Entry is one entry of a directory of the master, as listed. Record.Xtime is the effective xtime: never zero.
type Entry struct {
	Name   string
	Kind   slave.Kind
	Record slave.Record
	Stat   beneath.Stat
	Target string // of a symbolic link, where the slave cannot carry records on one
	// Always is set on a directory that refuses marks: nothing can be concluded from its xtime, so it is always entered.
	Always bool
	Bare   bool // it carries no xattr: there is none to read; false where that is not known
}

// How says in which way an entry that is no directory is brought over.
type How uint8

// The ways. New and Replace send content (or make the link or node); Compare asks for the slave's hash first and sends
// only metadata when it agrees; Adopt trusts size and mtime.
const (
	New How = iota
	Replace
	Compare
	Adopt
)

// Item is an entry to bring over. State is what the slave has under its name, nil where How is New.
type Item struct {
	Entry Entry
	How   How
	State *slave.EntryState
	// ParkFirst is set where a directory stands in the way.
	ParkFirst bool
}

// Child is a directory to go down into.
type Child struct {
	Entry Entry
	// Make is set when an OpMkdir has to come first: the slave lacks it, or has another directory of that name.
	Make bool
	// Absent is set when the slave has nothing there, so that there is nothing to survey.
	Absent bool
	// ParkFirst is what stands in the way, nil where nothing does.
	ParkFirst *slave.EntryState
	State     *slave.EntryState // what the slave has under its name, nil where it has nothing
}

// Plan is what to do in one directory. Nothing in it means that the directory itself is in step.
type Plan struct {
	Stale        []slave.EntryState // on the slave, not on the master
	Items        []Item
	Children     []Child
	MissingNames []Entry // in step, but the slave's inode has fewer names
}

// Options are the session's.
type Options struct {
	Namespace xtime.Namespace // of the slave's records
	// Quick trusts kind, size and mtime in ns instead of a hash, where there is no record of that inode.
	Quick bool
	// Wary is set where another filter may have left the slave's files alone since they were put on record, and others have changed
	// them. So what is on record is believed only of a file whose size, and mtime in seconds, is the master's.
	Wary bool
}

// Compute plans one directory, or one part of a large one: both lists must be of the same part.
func Compute(master []Entry, there []slave.EntryState, opts Options) Plan {
	byName := make(map[string]*slave.EntryState, len(there))
	for i := range there {
		byName[there[i].Name] = &there[i]
	}
	var p Plan
	if len(there) == 0 {
		p.Items = make([]Item, 0, len(master)) // most are files: growing one by one would copy them several times
	}
	for _, m := range master {
		s := byName[m.Name]
		delete(byName, m.Name)
		if m.Kind == slave.Dir {
			p.addDir(m, s)
		} else {
			p.addOther(m, s, opts)
		}
	}
	for i := range there {
		if byName[there[i].Name] != nil {
			p.Stale = append(p.Stale, there[i])
		}
	}
	return p
}

func (p *Plan) addDir(m Entry, s *slave.EntryState) {
	switch {
	case s == nil:
		p.Children = append(p.Children, Child{Entry: m, Make: true, Absent: true})
	case s.Kind != slave.Dir:
		p.Children = append(p.Children, Child{Entry: m, Make: true, Absent: true, ParkFirst: s, State: s})
	case s.Record.GFID != m.Record.GFID:
		p.Children = append(p.Children, Child{Entry: m, Make: true, State: s})
	case m.Always || s.Record.Xtime != m.Record.Xtime:
		p.Children = append(p.Children, Child{Entry: m, State: s})
	}
}

func (p *Plan) addOther(m Entry, s *slave.EntryState, opts Options) {
	switch {
	case s == nil:
		p.Items = append(p.Items, Item{Entry: m, How: New})
	case s.Kind == slave.Dir:
		p.Items = append(p.Items, Item{Entry: m, How: New, State: s, ParkFirst: true})
	case !InStep(m, s, opts.Namespace) || opts.Wary && touched(m, s):
		p.Items = append(p.Items, Item{Entry: m, How: how(m, s, opts), State: s})
	case m.Stat.Nlink > s.Nlink && m.Kind.CarriesRecord(opts.Namespace):
		p.MissingNames = append(p.MissingNames, m)
	}
}

// InStep tells whether the slave's entry s is the master's m, for kinds other than directories.
func InStep(m Entry, s *slave.EntryState, ns xtime.Namespace) bool {
	if m.Kind != s.Kind {
		return false
	}
	if m.Kind.CarriesRecord(ns) {
		return m.Record == s.Record
	}
	return sameAttributes(m, s)
}

// touched tells whether a file on the slave looks as if others had changed it. Not every slave keeps more than seconds.
func touched(m Entry, s *slave.EntryState) bool {
	return m.Kind == slave.File && (m.Stat.Size != s.Size || m.Stat.Mtime.Sec != s.Mtime.Sec)
}

// sameAttributes compares symbolic links and nodes that can carry no record: all there is to them is in the survey.
func sameAttributes(m Entry, s *slave.EntryState) bool {
	if m.Stat.Mtime != s.Mtime || m.Stat.UID != s.UID || m.Stat.GID != s.GID {
		return false
	}
	if m.Kind == slave.Symlink {
		return m.Target == s.Target
	}
	return m.Stat.Mode&07777 == s.Mode && (!m.Kind.Device() || m.Stat.Rdev == s.Rdev)
}

// how chooses for an entry that is on both sides and not in step.
func how(m Entry, s *slave.EntryState, opts Options) How {
	if m.Kind != slave.File || s.Kind != slave.File || m.Stat.Size != s.Size {
		return Replace
	}
	sameInode := s.Record.GFID == m.Record.GFID
	if !sameInode && s.Nlink > 1 && (!s.Record.GFID.IsZero() || s.Nlink != m.Stat.Nlink) {
		// The slave's inode has other names that may not belong to this one: putting our record on it would steal it.
		return Replace
	}
	sameMtime := m.Stat.Mtime == s.Mtime
	switch {
	case sameInode:
		if sameMtime || m.Record == s.Record {
			return Compare
		}
	case opts.Quick && sameMtime:
		return Adopt
	case s.Record.GFID.IsZero() || sameMtime:
		return Compare
	}
	return Replace
}
