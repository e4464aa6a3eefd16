package disk

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// Standing is what a slave's root tells its own host. It is for the slave's own operator, and needs
// no session.
type Standing struct {
	Session string    // the uuid of the session that has it open now; "" for none
	Stime   time.Time // the root's stamp: the slave has all that the master had then; zero for none
	// Promoted is what made it the writable side; the zero value where it follows its master.
	Promoted slave.Promotion
}

// Look tells how the slave at path stands with a master. It takes no lock, and changes nothing.
// What cannot be read counts as not there; only a root that cannot be opened is an error.
func Look(path string, master xtime.UUID) (Standing, error) {
	d, err := beneath.OpenRoot(path, true)
	if err != nil {
		return Standing{}, beneath.RootError(path, err)
	}
	defer d.Close()
	s := Standing{Session: openBy(d)}
	own := ownership{store: &store{areas: areas{dir: d}}}
	if have, err := own.readOwner(); err == nil && have != nil { // what is damaged an agent says
		s.Promoted = have.Promoted
	}
	for _, ns := range []xtime.Namespace{xtime.Trusted, xtime.User} {
		names := xtime.NamesFor(ns, master)
		stamp, err := d.Getxattr("", names.Xtime)
		if err != nil {
			continue
		}
		if t, err := xtime.Parse(stamp); err == nil {
			s.Stime = t.Time()
			break
		}
	}
	return s, nil
}

// openBy is the session whose agent holds the lock. Who asks does not take it, which might turn an agent away that comes just then.
func openBy(root *beneath.Dir) string {
	base, err := root.OpenPath(slave.Reserved)
	if err != nil {
		return ""
	}
	defer base.Close()
	f, err := base.OpenFile(lockFile, unix.O_RDONLY, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	return holder(f)
}

// holder is the session that has the lock, "" where the process that wrote it holds it no more.
func holder(f *os.File) string {
	if pid, session := readHolder(f); pid != 0 && holdsLock(f, pid) {
		return session
	}
	return ""
}
