package sftp

import (
	"math"
	"sync"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/wire"
)

// features are what the server and its file system turned out to do. Open learns them by trying,
// since the protocol has no way to ask; nothing changes them after that, so whoever reads them
// takes no lock.
type features struct {
	// uid and gid are found on a file that the account made; SFTP has no other way to ask.
	uid, gid uint32 // of what this account makes
	times    bool   // an mtime that is set is kept
	latest   uint32 // mtime that is kept
	// symlinks says that links can be made, and lead where they were told to.
	symlinks bool
}

// abilities are what the server, and the account on it, can do, and how an entry gets its meta by
// that. What they cannot do is kept in the index alone, and told to the crawler as slave.Lost.
type abilities struct {
	*space
	feat    features // learnt by Open; it does not change after that
	refused sync.Map // owners that this account may not give files to: owned -> struct{}
}

// Mtimes that no new file has by itself: the latest that SFTP can tell, and what file systems make of it that know no later
// time than 2038.
const (
	lastTime  = math.MaxUint32
	lastShort = math.MaxInt32
)

// probeFile learns what new files are like: whose they are, and whether the server keeps an mtime
// that it is given, and up to which. The file is one of staging. An error says that nothing can be
// written there.
func (ab *abilities) probeFile() error {
	c, path := ab.any(), ab.stagingName()
	if err := ab.create(path, []byte("x")); err != nil {
		return err
	}
	err := c.Setstat(ab.abs(path), wire.Attrs{Flags: wire.HasTimes, Atime: lastTime, Mtime: lastTime})
	a, lerr := ab.lstat(path)
	if lerr != nil {
		return lerr
	}
	ab.feat.uid, ab.feat.gid, ab.feat.latest = a.UID, a.GID, lastTime
	ab.feat.times = err == nil && (a.Mtime == lastTime || a.Mtime == lastShort)
	if ab.feat.times {
		ab.feat.latest = a.Mtime
	}
	if !ab.feat.times {
		ab.log.Warn().Str("slave", ab.name()).Msg("the server does not keep mtimes: files changed by others are told by size alone")
	}
	return c.Remove(ab.abs(path))
}

// probeLink learns whether the server makes symbolic links, and whether they lead where they were
// told to: some servers swap the arguments, and others follow the link. A server that refuses them
// is no error: links are kept in the index then.
func (ab *abilities) probeLink() error {
	c, link := ab.any(), ab.stagingName()
	if c.Symlink("georep probe", ab.abs(link)) != nil {
		return nil
	}
	target, err := c.Readlink(ab.abs(link))
	ab.feat.symlinks = err == nil && target == "georep probe"
	return ignoreAbsent(c.Remove(ab.abs(link)))
}

// seconds is the part of a time that the protocol, and the server, can carry: whole seconds since
// 1970, up to the latest mtime that was seen to be kept. The rest is in the index.
func (ab *abilities) seconds(at beneath.Time) uint32 {
	return uint32(min(max(at.Sec, 0), int64(ab.feat.latest)))
}

// owned is whose an entry is, by number: the protocol tells no names.
type owned struct{ uid, gid uint32 }

// setMeta sets what SFTP knows of an entry's meta by set, and tells what is kept in the index
// alone. has is whose the entry is now, so that what is right costs no request. The owner comes
// before the mode, since a change of owner clears the set-id bits; where the owner cannot be set
// they are left out, for they would give the account's rights to others. An error is the server's
// refusal of the mode or the times.
func (ab *abilities) setMeta(set func(wire.Attrs) error, m *slave.Meta, kind slave.Kind, has owned) (lost slave.Lost, err error) {
	mode := m.Mode & 0o7777
	if want := (owned{m.UID, m.GID}); want != has && !ab.setOwner(set, want) {
		lost |= slave.LostOwner
		if mode&0o6000 != 0 {
			mode &^= 0o6000
			lost |= slave.LostMode
		}
	}
	if kind == slave.Dir && ab.feat.uid != 0 && mode&0o700 != 0o700 {
		// Such a directory could not be changed any more, nor listed: the account is one of many, and has no other way.
		mode |= 0o700
		lost |= slave.LostMode
	}
	sec := ab.seconds(m.Mtime)
	err = set(wire.Attrs{Flags: wire.HasMode | wire.HasTimes, Mode: mode, Atime: sec, Mtime: sec})
	return lost | ab.lostAlways(m, kind), err
}

// setOwner tells whether the entry was given to its owner. What was refused once is not tried again
// in this session: an account that may not give files away would ask for each of them.
func (ab *abilities) setOwner(set func(wire.Attrs) error, want owned) bool {
	if _, refused := ab.refused.Load(want); refused {
		return false
	}
	err := set(wire.Attrs{Flags: wire.HasOwner, UID: want.uid, GID: want.gid})
	if err != nil && ab.first().Err() == nil {
		ab.refused.Store(want, struct{}{})
	}
	return err == nil
}

// lostAlways is what the protocol cannot carry of an entry, whatever the server: xattrs, parts of a
// second, devices, FIFOs and sockets.
func (ab *abilities) lostAlways(m *slave.Meta, kind slave.Kind) (lost slave.Lost) {
	if len(m.Xattrs) > 0 {
		lost |= slave.LostXattr
	}
	if m.Mtime != (beneath.Time{Sec: int64(ab.seconds(m.Mtime))}) {
		lost |= slave.LostTime
	}
	switch {
	case kind.Device():
		lost |= slave.LostDevice
	case kind.Node():
		lost |= slave.LostSpecial
	}
	return lost
}

// setAt sets attributes by path, for setMeta. What stands at the path is followed if it is a link,
// so the caller has looked that it is none.
func (ab *abilities) setAt(path string) func(wire.Attrs) error {
	return func(a wire.Attrs) error { return ab.any().Setstat(ab.abs(path), a) }
}

// ownerOf tells whose an entry is. An account that is not root and whose own the entry is to be
// need not ask: it has what it made. What cannot be looked at is taken for the account's.
func (ab *abilities) ownerOf(path string, m *slave.Meta) owned {
	mine := owned{ab.feat.uid, ab.feat.gid}
	if ab.feat.uid != 0 && mine == (owned{m.UID, m.GID}) {
		return mine
	}
	if a, err := ab.lstat(path); err == nil {
		return owned{a.UID, a.GID}
	}
	return mine
}
