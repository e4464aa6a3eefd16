package crawler

import (
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/slave"
)

// pair is an entry as both sides have it at one look. nil means that there is none.
type pair struct {
	path   string
	nonce  slave.Nonce // of the slave's digests
	mine   *plan.Entry
	theirs *slave.Detail
	meta   slave.Meta
	kinds  []string // what differs
	lost   []string // what of it the slave's files cannot show
	policy []string // what the policy of the slave's host changed
	// unreadable is what kept one side from being looked at.
	unreadable error
}

func (p *pair) bothDirs() bool {
	return p.mine != nil && p.theirs != nil && p.mine.Kind == slave.Dir && p.theirs.Kind == slave.Dir
}

// pair looks at entries on both sides, contents included: the two sides hash at the same time.
func (w *verifier) pair(paths []string) ([]*pair, error) {
	nonce := newNonce()
	details, err := w.slave.Examine(w.ctx, nonce, paths)
	if err != nil {
		return nil, err
	}
	pairs, info := make([]*pair, len(paths)), w.v.Slave.Info()
	var files []*pair
	var rules dirRules
	for i, path := range paths {
		p := &pair{path: path, nonce: nonce}
		pairs[i] = p
		if d := &details[i]; d.Err == nil {
			p.theirs = d
		} else if !vanished(d.Err) {
			p.unreadable = d.Err
		}
		if err := w.m.look(p); err != nil {
			p.unreadable = err
		}
		w.leaveOut(p, &rules)
		p.compare(&info)
		if p.mine != nil && p.theirs != nil && p.mine.Kind == slave.File && p.theirs.Kind == slave.File &&
			p.mine.Stat.Size == p.theirs.Size {
			files = append(files, p)
		}
	}
	return pairs, w.contents(files)
}

// newNonce makes one for each request: what the slave's host answered before is of no use to it.
func newNonce() (n slave.Nonce) {
	_, _ = rand.Read(n[:]) // never fails
	return n
}

// look reads the master's side of p.
func (m *view) look(p *pair) error {
	dir, name := beneath.Split(p.path)
	d, err := m.OpenPath(dir)
	if err == nil {
		defer d.Close()
		var e plan.Entry
		if e, err = m.Entry(dir, d, name); err == nil {
			p.mine = &e
			p.meta, err = m.Meta(d, name, &e.Stat)
		}
	}
	switch {
	case errors.Is(err, unix.EXDEV):
		p.mine, p.theirs = nil, nil // what another file system covers cannot be compared
		return nil
	case err != nil && vanished(err):
		p.mine = nil
		return nil
	}
	return err
}

// compare finds what differs apart from the content. A slave that does not run as root cannot keep owners, devices and
// special bits: those are not compared. What its file system, or its user namespace, cannot show is lost there, and no
// difference.
func (p *pair) compare(info *slave.Info) {
	m, s, limits := p.mine, p.theirs, &info.Limits
	switch {
	case p.unreadable != nil:
		p.mine, p.theirs, p.kinds = nil, nil, []string{"unreadable"}
		return
	case m == nil && s == nil:
		return
	case s == nil:
		p.missing(info)
		return
	case m == nil:
		p.kinds = []string{"extra"}
		return
	case m.Kind != s.Kind:
		p.kinds = []string{"type"}
		return
	}
	kept := keptOf(&p.meta, info)
	xattrs, acl := slave.DigestXattrs(p.nonce, p.meta.Xattrs, info.Root)
	for _, c := range []struct {
		kind string
		same bool
	}{
		{"mode", m.Kind == slave.Symlink || p.meta.Mode&kept.bits == s.Mode&kept.bits},
		{"owner", kept.owner(&p.meta, s)},
		{"mtime", limits.Times.Keep(p.meta.Mtime) == s.Mtime},
		{"content", m.Kind != slave.File || p.meta.Size == s.Size},
		{"target", m.Kind != slave.Symlink || p.meta.Target == s.Target},
		{"device", !m.Kind.Device() || p.meta.Rdev == s.Rdev},
		{"xattrs", xattrs == s.Xattrs},
		{"acl", !kept.acl || acl == s.ACL},
	} {
		if !c.same {
			p.kinds = append(p.kinds, c.kind)
		}
	}
	p.allow(info, kept)
	if p.meta.Mtime != s.Mtime && limits.Times.Keep(p.meta.Mtime) == s.Mtime {
		p.lost = append(p.lost, "mtime")
	}
	if limits.Namespace() && !(kept.uid && kept.gid) {
		p.lost = append(p.lost, "owner")
	}
	if !kept.acl {
		p.lost = append(p.lost, "acl")
	}
}

// missing judges an entry that the slave does not have.
func (p *pair) missing(info *slave.Info) {
	switch {
	case p.mine.Kind.Device() && info.Limits.Policy.NoDevices:
		p.policy = []string{"missing"}
	case info.Root || !p.mine.Kind.Device():
		p.kinds = []string{"missing"}
	}
}

// allow takes off what differs because the policy of the slave's host has it so, and in no other way.
func (p *pair) allow(info *slave.Info, kept kept) {
	if len(p.kinds) == 0 || info.Limits.Policy == (slave.PolicyLimits{}) {
		return
	}
	// What is kept in xattrs symbolic links cannot have.
	bare := info.Limits.Policy.Fake && p.mine.Kind == slave.Symlink
	want, free := info.Limits.Policy.Of(&p.meta, p.mine.Kind, p.path == "")
	xattrs, _ := slave.DigestXattrs(p.nonce, want.Xattrs, info.Root)
	p.kinds = slices.DeleteFunc(p.kinds, func(kind string) bool {
		allowed := false
		switch kind {
		case "mode":
			allowed = free || want.Mode&kept.bits == p.theirs.Mode&kept.bits
		case "owner":
			allowed = free || bare || kept.owner(&want, p.theirs)
		case "xattrs":
			allowed = bare || xattrs == p.theirs.Xattrs
		case "acl":
			allowed = free
		}
		if allowed {
			p.policy = append(p.policy, kind)
		}
		return allowed
	})
}

// kept is what of an entry's meta the slave can have.
type kept struct {
	bits          uint32 // of the mode
	uid, gid, acl bool
}

// owner tells whether the slave has m's owner, as far as it can.
func (k *kept) owner(m *slave.Meta, s *slave.Detail) bool {
	return (!k.uid || m.UID == s.UID) && (!k.gid || m.GID == s.GID)
}

// keptOf tells what a slave can have of m. In a user namespace that depends on the ids that it has: the set-id bits are for the
// right owner's file only, and without its ACL the group has less than the mode says.
func keptOf(m *slave.Meta, info *slave.Info) kept {
	l := &info.Limits
	k := kept{bits: 0o7777, uid: info.Root || l.Namespace() && l.HasUID(m.UID), gid: info.Root || l.Namespace() && l.HasGID(m.GID), acl: true}
	if !k.uid || !k.gid {
		k.bits = 0o777
	}
	for i := range m.Xattrs {
		x := &m.Xattrs[i]
		if x.Name != slave.AttrACL && x.Name != slave.AttrDefaultACL || l.HasACL(x.Value) {
			continue
		}
		if k.acl = false; x.Name == slave.AttrACL {
			k.bits &^= 0o070
		}
	}
	return k
}

// contents compares files of equal size by hash.
func (w *verifier) contents(files []*pair) error {
	for len(files) > 0 {
		k, bytes := 0, int64(0)
		for k < len(files) && k < hashFiles && (k == 0 || bytes+files[k].mine.Stat.Size <= hashBytes) {
			bytes += files[k].mine.Stat.Size
			k++
		}
		if err := w.someContents(files[:k]); err != nil {
			return err
		}
		files = files[k:]
	}
	return nil
}

func (w *verifier) someContents(files []*pair) error {
	paths := make([]string, len(files))
	for i, p := range files {
		paths[i] = p.path
	}
	type answer struct {
		sums []slave.HashResult
		err  error
	}
	theirs, nonce := make(chan answer, 1), newNonce()
	go func() {
		sums, err := w.slave.Digest(w.ctx, nonce, paths)
		theirs <- answer{sums, err}
	}()
	mine := make([]slave.HashResult, len(files))
	for i, path := range paths {
		mine[i] = w.m.Digest(path, nonce[:], w.ctx.Err)
		w.hashed(mine[i].Size)
	}
	got := <-theirs
	if err := errors.Join(got.err, w.ctx.Err()); err != nil {
		return err // a file that was not read to its end is no difference
	}
	for i, p := range files {
		if mine[i].Err != nil || got.sums[i].Err != nil || mine[i].Sum != got.sums[i].Sum {
			p.kinds = append([]string{"content"}, p.kinds...)
		}
	}
	return nil
}

// hashed counts what was read of a content.
func (w *verifier) hashed(bytes int64) {
	w.mu.Lock()
	w.summary.Bytes += bytes
	w.mu.Unlock()
	w.v.Seen.Add(0, bytes)
}

// suspect is an entry that differed when it was looked at first.
type suspect struct {
	path  string
	other string // another name of the inode that does not agree
	last  *look
}

// look is one look at a suspect.
type look struct {
	pair   *pair
	parent *plan.Entry  // the master's directory
	stamp  slave.Record // of the slave's
	kinds  []string
}

// lookAgain is the pause before the next look, for what the slave is just getting.
const lookAgain = 300 * time.Millisecond

// judge looks at suspects again and again, until each of them is equal, a difference, or counts as pending.
func (w *verifier) judge(list []suspect) error {
	w.judging.Lock()
	defer w.judging.Unlock()
	for n := 0; n < looks && len(list) > 0; n++ {
		if err := w.v.Settle(w.ctx); err != nil {
			return err
		}
		left := list[:0]
		for _, s := range list {
			now, err := w.lookAt(&s)
			if err != nil {
				return err
			}
			switch {
			case len(now.kinds) == 0:
			case s.last != nil && now.same(s.last) && now.claimed(s.last):
				w.mu.Lock()
				w.summary.Differences++
				w.mu.Unlock()
				w.v.Found(Difference{Path: s.path, Kinds: now.kinds})
			default:
				s.last = now
				left = append(left, s)
			}
		}
		list = left
		if len(list) > 0 && n+1 < looks {
			select {
			case <-w.ctx.Done():
				return w.ctx.Err()
			case <-time.After(lookAgain):
			}
		}
	}
	for _, s := range list {
		if w.v.Waits != nil {
			w.v.Waits(s.path)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.summary.Pending += int64(len(list))
	w.summary.Unlinked = w.links.missed
	return nil
}

// lookAt looks at a suspect. The slave's stamp is read first: what it claims then must be there afterwards.
func (w *verifier) lookAt(s *suspect) (*look, error) {
	dir := parentOf(s.path)
	above, err := w.pair([]string{dir})
	if err != nil {
		return nil, err
	}
	paths := []string{s.path}
	if s.other != "" {
		paths = append(paths, s.other)
	}
	pairs, err := w.pair(paths)
	if err != nil {
		return nil, err
	}
	l := &look{pair: pairs[0], parent: above[0].mine, kinds: pairs[0].kinds}
	if above[0].theirs != nil {
		l.stamp = above[0].theirs.Record
	}
	if s.other != "" && brokenLink(pairs[0], pairs[1]) {
		l.kinds = append(slices.Clone(l.kinds), "link")
	}
	return l, nil
}

// brokenLink tells whether two entries are names of one inode on one side only.
func brokenLink(a, b *pair) bool {
	if a.mine == nil || b.mine == nil || a.theirs == nil || b.theirs == nil {
		return false
	}
	return (a.mine.Record.GFID == b.mine.Record.GFID) != (a.theirs.Ino == b.theirs.Ino)
}

// same tells whether nothing has happened on the master since the look before, and the difference is the same one.
func (l *look) same(before *look) bool {
	a, b := l.pair.mine, before.pair.mine
	if (a == nil) != (b == nil) || !slices.Equal(l.kinds, before.kinds) {
		return false
	}
	return a == nil || a.Record == b.Record && a.Stat.Ctime == b.Stat.Ctime
}

// claimed tells whether the slave's records say that it has the entry as the master had it at the look before, by when all
// changes up to the one before that were marked: its own record is the master's, or the stamp of its directory reaches as
// far as the master's directory had come by then.
func (l *look) claimed(before *look) bool {
	m, s := l.pair.mine, l.pair.theirs
	if m != nil && s != nil && m.Kind == s.Kind && s.Record == m.Record {
		return true
	}
	if l.pair.path == "" || l.parent == nil || before.parent == nil {
		return false
	}
	same := l.parent.Record.GFID == before.parent.Record.GFID && l.stamp.GFID == l.parent.Record.GFID
	return same && l.stamp.Xtime >= before.parent.Record.Xtime
}
