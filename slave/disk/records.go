package disk

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
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

// besideForm is what a record beside looks like: the GFID, and the xtime in hexadecimal digits.
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
func (t *Tree) openRecords() error {
	t.identifies = identifies(t.dir)
	found := errors.New("found")
	err := eachName(t.records, func(string) error { return found })
	if err == found {
		t.besides.Store(true)
		err = nil
	}
	return err
}

// identifies tells whether a file system gives its inodes an identity that lasts, and that no other inode gets. The
// handles of FUSE, 9p and SMB are those of a cache.
func identifies(d *beneath.Dir) bool {
	fs, err := d.Statfs()
	if err != nil {
		return false
	}
	switch fs.Type {
	case unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return false
	}
	if _, err := d.Handle(""); err == nil {
		return true
	}
	st, err := d.Stat("")
	return err == nil && st.Btime != beneath.Time{}
}

// besideName names the record of the entry at p.
func (t *Tree) besideName(p place) (string, error) {
	g, err := p.dir.GFID(p.name)
	return g.String() + "." + t.names.GFID, err
}

// gfidOf reads the GFID on record of an entry, wherever the record is.
func (t *Tree) gfidOf(p place) (xtime.GFID, error) {
	g, err := p.dir.RecordedGFID(p.name, &t.names)
	if err != nil || !g.IsZero() {
		return g, err
	}
	rec, _, err := t.readBeside(p)
	return rec.GFID, err
}

// readBeside reads the record that lies beside for the entry at p.
func (t *Tree) readBeside(p place) (rec slave.Record, there bool, err error) {
	if !t.besides.Load() {
		return rec, false, nil
	}
	name, err := t.besideName(p)
	if err != nil {
		return rec, false, err
	}
	text, err := t.records.Readlink(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) {
		return rec, false, nil
	}
	if err != nil {
		return rec, false, err
	}
	rec, there = parseBeside(text)
	return rec, there, nil
}

// putBeside writes the record of the entry at p into the index.
func (t *Tree) putBeside(p place, rec slave.Record) error {
	name, err := t.besideName(p)
	if err != nil {
		return err
	}
	t.besides.Store(true)
	to := place{t.records, name}
	err = t.sys.symlink(besideForm(rec), to)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	temp := place{t.staging, t.stagingName() + bookSuffix}
	if err := t.sys.symlink(besideForm(rec), temp); err != nil {
		return err
	}
	if err := t.sys.rename(temp, to, 0); err != nil {
		return errors.Join(err, t.sys.unlink(temp))
	}
	return nil
}

// forgetBeside removes the record beside of an inode whose last name is about to go. One that stays means nothing.
func (t *Tree) forgetBeside(p place) {
	if !t.besides.Load() {
		return
	}
	st, err := p.dir.Stat(p.name)
	if err != nil || !st.IsDir() && st.Nlink > 1 {
		return
	}
	name, err := t.besideName(p)
	if err == nil {
		err = ignoreAbsent(t.sys.unlink(place{t.records, name}))
	}
	if err != nil {
		t.log.Debug().Str("name", p.name).Err(err).Msg("the record of what is removed stays")
	}
}
