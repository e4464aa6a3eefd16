package disk

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
)

// A record belongs on its entry. Where the file system has no room for it there, because the master's own xattrs fill all
// that an inode may have, it lies beside: in .georep/records/, as a symbolic link, which is made or replaced as a whole. The
// link is named after the slave's inode as its file handle identifies it, so it follows the inode through renames, links
// and the park, and another inode that gets the same number does not inherit it. An entry that has a GFID of its own is never
// looked up, so entries that fit cost nothing.
//
// A record that is lost costs a comparison. One that claims too much cannot come about: it is written after all that it
// vouches for, and where the record moves from the entry to the index the one on the entry goes away first, or says no more
// than the new one.

// records is what the slave has on record of its entries, and so what stands at a place (look). It
// has no lock: the names of the records are set while the slave is opened. It embeds store, so that
// whoever has records can also make the changes that keep them true.
type records struct {
	*store
	names   xtime.Names
	masters map[string]bool // uuids of the volumes that the slave is itself the master of
	// besides is set while a record may lie beside its entry, in records/, and identifies where one can.
	besides    atomic.Bool
	identifies bool
}

// besideForm is what a record beside looks like: the GFID, and the xtime in hexadecimal digits. The
// text is the target of a symbolic link, which a crash leaves whole or not at all.
func besideForm(rec slave.Record) string {
	b := rec.Xtime.Bytes()
	return rec.GFID.String() + "." + hex.EncodeToString(b[:])
}

// parseBeside reads what besideForm made. What is anything else is no record.
func parseBeside(text string) (rec slave.Record, ok bool) {
	gfid, stamp, ok := strings.Cut(text, ".")
	if !ok {
		return rec, false
	}
	g, err := xtime.ParseGFID(gfid)
	raw, rawErr := hex.DecodeString(stamp)
	if err != nil || rawErr != nil || len(raw) != xtime.Size {
		return rec, false
	}
	rec.GFID = g
	if rec.Xtime, err = xtime.Parse(raw); err != nil {
		rec.Xtime = 0 // a record with no xtime
	}
	return rec, !g.IsZero()
}

// openRecords looks whether anything lies beside, and whether inodes can be told apart here.
// besides is never taken back: a look too many costs one readlink.
func (r *records) openRecords() error {
	r.identifies = identifies(r.dir)
	found := errors.New("found")
	err := eachName(r.recordsDir, func(string) error { return found })
	if err == found {
		r.besides.Store(true)
		err = nil
	}
	return err
}

// identifies tells whether a file system gives its inodes an identity that lasts, and that no other inode gets.
func identifies(d *beneath.Dir) bool {
	if beneath.Opaque(d) {
		return false
	}
	if _, err := d.Handle(""); err == nil {
		return true
	}
	st, err := d.Stat("")
	return err == nil && st.Btime != beneath.Time{}
}

// besideName names the record of the entry at p. It ends in the attribute's name, which has the
// master's uuid in it: two masters never share a record.
func (r *records) besideName(p place) (string, error) {
	g, err := p.dir.GFID(p.name)
	return g.String() + "." + r.names.GFID, err
}

// gfidOf reads the GFID on record of an entry, wherever the record is. Zero: none is on record.
// Trouble with reading is an error, and not a zero.
func (r *records) gfidOf(p place) (xtime.GFID, error) {
	g, err := p.dir.RecordedGFID(p.name, &r.names)
	if err != nil || !g.IsZero() {
		return g, err
	}
	rec, _, err := r.readBeside(p)
	return rec.GFID, err
}

// readBeside reads the record that lies beside for the entry at p. It costs nothing while nothing
// lies beside anywhere.
func (r *records) readBeside(p place) (rec slave.Record, there bool, err error) {
	if !r.besides.Load() {
		return rec, false, nil
	}
	name, err := r.besideName(p)
	if err != nil {
		return rec, false, err
	}
	text, err := r.recordsDir.Readlink(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) {
		return rec, false, nil
	}
	if err != nil {
		return rec, false, err
	}
	rec, there = parseBeside(text)
	return rec, there, nil
}

// putBeside writes the record of the entry at p into the index. It replaces one that is there, in
// one step. Nothing is synced here; a stamp comes after a sync anyway.
func (r *records) putBeside(p place, rec slave.Record) error {
	name, err := r.besideName(p)
	if err != nil {
		return err
	}
	r.besides.Store(true)
	to := place{r.recordsDir, name}
	err = r.sys.symlink(besideForm(rec), to)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	temp := place{r.staging, r.stagingName() + bookSuffix}
	if err := r.sys.symlink(besideForm(rec), temp); err != nil {
		return err
	}
	if err := r.sys.rename(temp, to, 0); err != nil {
		return errors.Join(err, r.sys.unlink(temp))
	}
	return nil
}

// forgetBeside removes the record beside of an inode whose last name is about to go. One that stays means nothing.
func (r *records) forgetBeside(p place) {
	if !r.besides.Load() {
		return
	}
	st, err := p.dir.Stat(p.name)
	if err != nil || !st.IsDir() && st.Nlink > 1 {
		return
	}
	name, err := r.besideName(p)
	if err == nil {
		err = ignoreAbsent(r.sys.unlink(place{r.recordsDir, name}))
	}
	if err != nil {
		r.log.Debug().Str("name", p.name).Err(err).Msg("the record of a removed entry stays")
	}
}

// look tells what stands at p; nothing is not an error. Whoever acts on what it says does so on the
// committer's goroutine, or holds on to the inode (pinned): others may change the slave at any
// time.
func (r *records) look(p place) (entry, error) { return r.lookBy(p, r.recordOf) }

// lookBy is look with what reads the record.
func (r *records) lookBy(p place, record func(place, slave.Kind) (slave.Record, bool, error)) (entry, error) {
	st, err := p.dir.Stat(p.name)
	if errors.Is(err, fs.ErrNotExist) {
		return entry{}, nil
	}
	if err == nil && p.name != "" && st.IsMount() {
		err = errMounted
	}
	if err != nil {
		return entry{}, err
	}
	e := entry{there: true, kind: slave.KindOf(st.Mode), st: st}
	if e.kept, err = r.keptOf(p, &st); e.kept != nil {
		e.kind = slave.KindOf(e.kept.Mode)
	}
	if err != nil {
		return entry{}, err
	}
	e.rec, e.beside, err = record(p, e.kind)
	return e, err
}

// pinned holds on to what stands at p: it is looked at, and changed, whatever becomes of its name meanwhile (invariant 17). The
// caller calls done. A mount is refused with EXDEV.
func pinned(p place) (pin place, done func(), err error) {
	d, err := p.dir.Pin(p.name)
	if errors.Is(err, unix.EXDEV) {
		err = errMounted
	}
	if err != nil {
		return place{}, nil, err
	}
	return place{d, ""}, func() { d.Close() }, nil
}

// recordOf reads an entry's record. An ordinary user must be allowed to read what he reads xattrs
// of. The mode is lifted for a moment then. That is why only the slave's own part, which is what
// stands below its root, is ever lifted.
func (r *records) recordOf(p place, kind slave.Kind) (rec slave.Record, beside bool, err error) {
	rec, beside, err = r.onRecord(p, kind)
	if r.root || !errors.Is(err, unix.EACCES) {
		return rec, beside, err
	}
	err = r.lifted(p.dir.At(p.name), func() error { rec, beside, err = r.readRecord(p); return err })
	return rec, beside, err
}

// onRecord is recordOf as far as this process may read it now.
func (r *records) onRecord(p place, kind slave.Kind) (rec slave.Record, beside bool, err error) {
	if !kind.CarriesRecord(r.names.Namespace) {
		return rec, false, nil
	}
	return r.readRecord(p)
}

// readRecord reads GFID and xtime in this order; a record without a GFID has no meaning, whatever
// its xtime. The GFID comes first: an xtime that is read later can only be of a newer record.
func (r *records) readRecord(p place) (rec slave.Record, beside bool, err error) {
	if rec.GFID, err = p.dir.RecordedGFID(p.name, &r.names); err != nil {
		return rec, false, err
	}
	if rec.GFID.IsZero() {
		if found, there, err := r.readBeside(p); err != nil || there {
			return found, there, err
		}
	}
	rec.Xtime, err = p.dir.Xtime(p.name, &r.names)
	return rec, false, err
}

// removeXtime makes sure that the entry has no xtime.
func (r *records) removeXtime(i *beneath.Inode) error {
	err := r.sys.removexattr(i, r.names.Xtime)
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

// unstampBeside is unstamp where the record may lie beside.
func (r *records) unstampBeside(p place) (had bool, err error) {
	rec, there, err := r.readBeside(p)
	if err != nil || !there || rec.Xtime == 0 {
		return false, err
	}
	return true, r.putBeside(p, slave.Record{GFID: rec.GFID})
}

// entry is what stands at a place. It is what was seen at one moment, and is passed on by value.
type entry struct {
	there bool
	kind  slave.Kind
	st    beneath.Stat
	rec   slave.Record
	// beside tells that the record is not on the entry.
	beside bool
	kept   *slave.Kept // what it is on the master, where that is kept
}

// standing is what decides about the entry.
func (e *entry) standing() apply.Standing {
	return apply.Standing{There: e.there, Kind: e.kind, Record: e.rec}
}

// errMounted: whatever is mounted on an entry is not the slave's, and hides what is.
var errMounted = fmt.Errorf("something is mounted there on the slave's host: %w", unix.EXDEV)
