package disk

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/policy"
)

// room is what entries come to, by the rules of the policies max-bytes and max-entries.
type room struct{ bytes, entries int64 }

// The sums never overflow: both are bounded by what a file system can hold.
func (r room) plus(o room) room  { return room{r.bytes + o.bytes, r.entries + o.entries} }
func (r room) minus(o room) room { return room{r.bytes - o.bytes, r.entries - o.entries} }

// atLeast keeps what was taken away twice from being room that there is not.
func (r room) atLeast(o room) room { return room{max(r.bytes, o.bytes), max(r.entries, o.entries)} }

// What entries count for. A name is an entry. A file's bytes are the blocks that it has, and no more than its length and its
// xattrs need; everything else counts for a block at least. Where it is not certain how much a change came to it counts for more.
const (
	otherBytes = 4 << 10
	xattrBytes = 64 << 10 // the most that an inode's xattrs are expected to need
)

// other is what anything but a file counts for when it is made.
var other = room{otherBytes, 1}

// charge is what an inode counts for. Of a directory the blocks count that its xattrs may need, and some of those of its names.
func charge(st *beneath.Stat) int64 {
	blocks := int64(st.Blocks) * 512
	if slave.KindOf(st.Mode) != slave.File {
		return min(max(blocks, otherBytes), otherBytes+xattrBytes)
	}
	return min(blocks, inBlocks(st.Size)+xattrBytes)
}

// goes is what an inode counts for whose name goes: nothing but that name where it has others. A directory may never have been
// counted for as much as it has become.
func goes(st *beneath.Stat) room {
	switch {
	case st.IsDir():
		return other
	case st.Nlink > 1:
		return room{entries: 1}
	}
	return room{charge(st), 1}
}

// bookRoom is what a bookkeeping file counts for: a block, and those that it needs besides.
func bookRoom(st *beneath.Stat) room {
	if slave.KindOf(st.Mode) != slave.File {
		return other
	}
	return room{max(inBlocks(st.Size), otherBytes), 1}
}

// inBlocks rounds up to whole blocks of otherBytes.
func inBlocks(n int64) int64 { return (n + otherBytes - 1) &^ (otherBytes - 1) }

// usage is what a slave holds of what its policy lets it hold. The nil usage is that of a slave without limits. It is safe for
// concurrent use.
//
// It goes by the changes that are made here, each counted before it is made, and is put right by a count of the whole slave once
// in a while (recounts). Changes by others count from then on.
//
// mu guards the allowance, what is held and the recount; layout and knows are set before it is used.
type usage struct {
	layout
	knows
	refused func(error) // told the first refusal

	mu sync.Mutex
	allowance
	recounts
	held    room
	index   int64 // bytes of places/, which writes by itself
	changed bool  // since it was put on record
}

// layout says what a directory of the slave is for. It tells parts of the bookkeeping from what is
// the master's, by where they lie.
type layout struct {
	base    *beneath.Dir          // what lies in it does not count
	books   map[*beneath.Dir]bool // directories of georep's bookkeeping
	partial *beneath.Dir
	staging *beneath.Dir
	parked  *beneath.Dir
	trash   *beneath.Dir
}

// knows is what the slave's file system tells of the room that an inode takes.
type knows struct {
	prompt bool              // at once how many blocks a file needs
	shows  bool              // those blocks have the xattrs, too
	own    func(string) bool // xattrs that are georep's
}

// allowance is what the policy of the slave's host lets it hold. It is under usage.mu.
type allowance struct {
	limit room                 // 0: none
	again func() policy.Policy // the limits as they are now
	asked time.Time            // when they were asked for last
	short bool                 // something was refused since the last count
	told  bool                 // the refusal
}

// recounts is what a count of the whole slave puts right. It is under usage.mu. A count runs beside
// the session, so what changes meanwhile is added to its result.
type recounts struct {
	counted  time.Time
	counting bool // a count is under way
	added    room // since it began
	missed   bool // something may have escaped it
	blind    bool // what the slave holds was never counted
	torn     bool // the session that held it last did not end in order
}

// askEvery is how often a slave that has reached a limit looks whether that was raised.
const askEvery = 2 * time.Second

// bookSuffix ends the names in staging/ of what is to be a bookkeeping file.
const bookSuffix = ".book"

// counts tells whether what is made at p counts.
func (u *usage) counts(p place) bool { return u != nil && p.dir != u.base }

// isBook tells whether what is made at p is a bookkeeping file, some of which lie, at least at first, beside what is the
// master's.
func (l *layout) isBook(p place) bool {
	return l.books[p.dir] || p.dir == l.partial && strings.HasSuffix(p.name, journalSuffix) ||
		p.dir == l.staging && strings.HasSuffix(p.name, bookSuffix)
}

// bookName is isBook for a name in a directory that is given by its path.
func bookName(dir, name string) bool {
	top, _, _ := strings.Cut(strings.TrimPrefix(dir, slave.Reserved+"/"), "/")
	switch {
	case !strings.HasPrefix(dir, slave.Reserved+"/"):
		return false
	case top == apply.Partial:
		return strings.HasSuffix(name, journalSuffix)
	case top == apply.Staging:
		return strings.HasSuffix(name, bookSuffix)
	}
	return top == "links" || top == "pending" || top == "records"
}

// take counts what is about to be made, or refuses it. An ErrLimit says which limit, for people and
// for the crawler, and counts nothing.
func (u *usage) take(r room) error { return u.takeUpTo(r, false) }

// takeUpTo is take. Bookkeeping may go beyond the limit, by a margin: without them nothing could be
// removed any more. The first refusal is told to the slave's host; later ones only to the master.
func (u *usage) takeUpTo(r room, margin bool) error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	err := u.beyond(r, margin)
	if err != nil && u.raised() {
		err = u.beyond(r, margin)
	}
	if err != nil {
		u.short = true
		if !u.told && u.refused != nil {
			u.refused(err)
		}
		u.told = true
		return err
	}
	u.add(r)
	return nil
}

// takeAt is take for what is made at p.
func (u *usage) takeAt(p place, r room) error {
	if !u.counts(p) {
		return nil
	}
	if u.isBook(p) {
		return u.takeUpTo(room{max(r.bytes, otherBytes), r.entries}, true)
	}
	return u.take(r)
}

// takeWritten counts what is about to be written to a bookkeeping file; contents count as they are held (hold).
func (u *usage) takeWritten(i *beneath.Inode, off int64, n int) error {
	if u == nil {
		return nil
	}
	d, name := i.Place()
	if p := (place{d, name}); !u.counts(p) || !u.isBook(p) {
		return nil
	}
	more := inBlocks(off+int64(n)) - max(inBlocks(off), otherBytes) // the first block counts from when it was made
	return u.takeUpTo(room{bytes: max(more, 0)}, true)
}

// add counts r, whatever the limits say. mu is held. It never goes below zero: that would be room
// that nobody has.
func (u *usage) add(r room) {
	u.held = u.held.plus(r).atLeast(room{})
	u.added = u.added.plus(r.atLeast(room{}))
	u.changed = true
}

// correct counts more, or less, for what was made already.
func (u *usage) correct(bytes int64) {
	if u == nil || bytes == 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.add(room{bytes: bytes})
}

// give counts what was not made after all, or is gone.
func (u *usage) give(r room) {
	if u == nil || r == (room{}) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.add(room{}.minus(r))
}

// giveAt is give for what was not made at p.
func (u *usage) giveAt(p place, r room) {
	switch {
	case !u.counts(p):
	case u.isBook(p):
		u.give(room{max(r.bytes, otherBytes), r.entries})
	default:
		u.give(r)
	}
}

// How far bookkeeping may go beyond the limits: by a sixteenth, and by so much at least.
const (
	marginShare   = 16
	marginBytes   = 256 << 10
	marginEntries = 64
)

// beyond tells which limit keeps r out. mu is held. A slave that was never counted takes only
// bookkeeping until it is.
func (u *usage) beyond(r room, margin bool) error {
	for _, l := range []struct {
		name             string
		limit, held, add int64
		more             int64
		text             func(int64) string
	}{
		{"max-bytes", u.limit.bytes, u.held.bytes + u.index, r.bytes, marginBytes, policy.SizeText},
		{"max-entries", u.limit.entries, u.held.entries, r.entries, marginEntries, func(n int64) string { return fmt.Sprint(n) }},
	} {
		allowed := l.limit
		if margin {
			allowed += max(l.limit/marginShare, l.more)
		}
		switch {
		case l.limit == 0 || l.add <= 0:
		case u.blind && !margin:
			return &slave.LimitError{Text: fmt.Sprintf("its usage is still being counted, for the policy of its host (%s %s)", l.name, l.text(l.limit))}
		case l.held+l.add > allowed:
			return &slave.LimitError{Text: fmt.Sprintf("the policy of its host lets it hold no more (%s %s)", l.name, l.text(l.limit))}
		}
	}
	return nil
}

// raised asks, now and then, what the limits are now. usage.mu is held.
func (a *allowance) raised() bool {
	if a.again == nil || time.Since(a.asked) < askEvery {
		return false
	}
	a.asked = time.Now()
	limit := limitsOf(a.again())
	changed := limit != a.limit
	a.limit = limit
	return changed
}

// limitsOf has zero for a limit that is not set.
func limitsOf(p policy.Policy) room { return room{p.MaxBytes, p.MaxEntries} }

// leaving is what goes with the name p. It is asked before the name goes. What cannot be looked at
// counts for nothing, so a count of the whole slave has to find it.
func (u *usage) leaving(p place) room {
	if !u.counts(p) {
		return room{}
	}
	st, err := p.dir.Stat(p.name)
	if err != nil {
		return room{}
	}
	if u.isBook(p) {
		return bookRoom(&st)
	}
	return u.goes(p, &st)
}

// goes is goes with what the blocks do not show.
func (u *usage) goes(p place, st *beneath.Stat) room {
	r := goes(st)
	if r.bytes > 0 {
		r.bytes += u.hidden(p.dir.At(p.name))
	}
	return r
}

// leavingBooks is leaving for a place in a bookkeeping directory that was opened for this alone.
func (u *usage) leavingBooks(p place) room {
	if u == nil {
		return room{}
	}
	st, err := p.dir.Stat(p.name)
	if err != nil {
		return room{}
	}
	return bookRoom(&st)
}

// replaced is what goes with the name to once from is renamed to it.
func (u *usage) replaced(from, to place) room {
	if !u.counts(from) || !u.counts(to) {
		return room{}
	}
	old, err := to.dir.Stat(to.name)
	if err != nil {
		return room{}
	}
	if st, err := from.dir.Stat(from.name); err != nil || sameInode(st, old) {
		return room{} // two names of one inode both stay
	}
	if u.isBook(from) {
		return bookRoom(&old) // a book replaces a book
	}
	return u.goes(to, &old)
}

// hold is what a file comes to while it is written, and once it is complete. It belongs to who
// writes the file. It counts before it writes, and is put right by measure when the writing is
// over.
type hold struct {
	used         *usage
	taken, wrote int64
}

// more counts bytes that are about to be written. An error counts nothing more; what was counted
// before stays until measure.
func (h *hold) more(n int64) error {
	if h.used == nil {
		return nil
	}
	if err := h.used.take(room{bytes: n}); err != nil {
		return err
	}
	h.taken, h.wrote = h.taken+n, h.wrote+n
	return nil
}

// measure counts what the file has come to. A file system that tells its blocks later is not believed.
func (h *hold) measure(f *beneath.Inode) {
	if h.used == nil {
		return
	}
	st, err := f.Stat()
	if err != nil {
		return // it stays at what was asked for
	}
	n := charge(&st)
	if !h.used.prompt {
		n = max(n, min(h.wrote, st.Size))
	}
	h.used.correct(n - h.taken)
	h.taken = n
}

// hold has room for a segment that is about to be written.
func (u *upload) hold(s *slave.Segment) error {
	if u.held.used == nil {
		return nil
	}
	n := int64(0)
	for i := range s.Parts {
		n += s.Parts[i].Size()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.held.more(n)
}

// measure counts what the upload has come to.
func (u *upload) measure() {
	if u.held.used == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held.measure(u.file)
}

// grows has room for the xattrs of an entry that counts for as much as was says; done counts what
// they came to. done must be called whether or not the change succeeds.
func (u *usage) grows(i *beneath.Inode, m *slave.Meta, was *beneath.Stat) (done func(), err error) {
	if u == nil {
		return func() {}, nil
	}
	bytes := int64(0)
	for k := range m.Xattrs {
		bytes += int64(len(m.Xattrs[k].Name) + len(m.Xattrs[k].Value))
	}
	// What there was has room for them, and few fit beside the inode. What they need after all is counted afterwards.
	own := int64(otherBytes)
	if slave.KindOf(was.Mode) == slave.File {
		own = inBlocks(was.Size)
	}
	if bytes -= max(charge(was)-own, 0); bytes < otherBytes/2 {
		bytes = 0
	}
	if err := u.take(room{bytes: bytes}); err != nil {
		return nil, err
	}
	return func() {
		grown := int64(0)
		if now, err := i.Stat(); err == nil {
			grown = charge(&now) - charge(was)
			if now.IsDir() {
				grown = max(grown, 0) // as much as it counts for when it goes it has counted for before
			}
		}
		u.correct(grown - bytes)
	}, nil
}
