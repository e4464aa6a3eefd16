package sftp

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/wire"
)

// host is the far end: several sessions on one account, and the slave's root there. Requests that depend on each other wait
// for each other's answers, so any of them may go over any session.
type host struct {
	sessions atomic.Pointer[[]*wire.Client] // a list is never changed: join puts another in its place
	turn     atomic.Uint64
	root     string       // absolute, without a slash at its end
	ahead    atomic.Int64 // answers about directories that were asked for ahead, of all listings
	held     atomic.Int64 // bytes of such answers, ahead or not, that nobody has read yet
	most     int64        // entries that a directory may have, where it is not mostListed: for tests
}

// any gives a session for the next request, in turn, so that all of them carry about as much.
// Requests that depend on each other wait for each other's answers and may go over different ones;
// only a handle belongs to the session that it was opened on.
func (h *host) any() *wire.Client {
	all := h.all()
	return all[h.turn.Add(1)%uint64(len(all))]
}

// first has the features that are asked about: all sessions run the same server.
func (h *host) first() *wire.Client { return h.all()[0] }

// all gives the sessions that there are now; nil before the first has joined. The list is never
// changed, so the caller may keep it.
func (h *host) all() []*wire.Client {
	if have := h.sessions.Load(); have != nil {
		return *have
	}
	return nil
}

// join adds a session to those that requests go over. Several may join at the same time.
func (h *host) join(c *wire.Client) {
	for {
		old := h.sessions.Load()
		var list []*wire.Client
		if old != nil {
			list = slices.Clone(*old)
		}
		list = append(list, c)
		if h.sessions.CompareAndSwap(old, &list) {
			return
		}
	}
}

// patience is how long a server may leave requests unanswered, while it answers nothing else, before that is worth telling.
const patience = time.Minute

// Unanswered tells of a server that is asked and does nothing, in any session, for longer than it should need: since how long;
// zero where nothing is wrong.
func (h *host) Unanswered() (request string, since time.Time) {
	waits := false
	for _, c := range h.all() {
		last, asked := c.Moved()
		waits = waits || asked
		if last.After(since) {
			since = last
		}
	}
	if !waits || time.Since(since) < patience {
		return "", time.Time{}
	}
	return "SFTP", since
}

// abs is where a path of the slave is on its host. The root itself is the path "".
func (h *host) abs(path string) string {
	if path == "" {
		if h.root == "" {
			return "/"
		}
		return h.root
	}
	return h.root + "/" + path
}

// Directories of our own.
const (
	base       = slave.Reserved + "/"
	stagingDir = base + apply.Staging
	partialDir = base + apply.Partial
	parkedDir  = base + apply.Parked
	trashDir   = base + apply.Trash
	indexDir   = base + "index"
)

// lstat describes what stands at a path of the slave, itself and not what a link there leads to.
// What lies above it is followed: dirs looks at that.
func (h *host) lstat(path string) (wire.Attrs, error) { return h.any().Lstat(h.abs(path)) }

// rename moves an entry to a place where nothing is, or, where the server can, in the place of what
// is there. It is atomic wherever rename is on the host.
func (h *host) rename(from, to string) error {
	c := h.any()
	if c.CanReplace() {
		return c.PosixRename(h.abs(from), h.abs(to))
	}
	return c.Rename(h.abs(from), h.abs(to))
}

// oldSuffix marks what was moved out of the way by a server that cannot replace.
const oldSuffix = ".old"

// replace is rename over a file that may be there, also where the server cannot do so at once: then the old one is kept
// aside until the new one has its name.
func (h *host) replace(from, to, aside string) error {
	err := h.rename(from, to)
	if err == nil || h.first().CanReplace() || errors.Is(err, unix.ENOENT) {
		return err
	}
	c := h.any()
	if a, lerr := h.lstat(to); lerr != nil || a.Mode&unix.S_IFMT == unix.S_IFDIR {
		return err
	}
	_ = c.Remove(h.abs(aside)) // what a cut left
	if err := c.Rename(h.abs(to), h.abs(aside)); err != nil {
		return err
	}
	if err := c.Rename(h.abs(from), h.abs(to)); err != nil {
		return errors.Join(errHalf, err, c.Rename(h.abs(aside), h.abs(to)))
	}
	_ = c.Remove(h.abs(aside)) // else it is cleared when the next session begins, or the next time
	return nil
}

// errHalf marks a replacement that ended half way.
var errHalf = errors.New("the old entry was moved aside")

// create writes a new file of ours as a whole, durably where the server can. What was there is
// replaced in place, so it is for names in staging, that nobody else reads.
func (h *host) create(path string, text []byte) error {
	c := h.any()
	f, err := c.Open(h.abs(path), wire.OpenWrite|wire.OpenCreate|wire.OpenTrunc, wire.Attrs{Flags: wire.HasMode, Mode: 0o600})
	if err != nil {
		return err
	}
	return f.Finish(&wire.Last{Data: text, Sync: true})
}

// readSize is what one request reads, readAhead how many are on their way for one file.
const (
	readSize  = 32 << 10
	readAhead = 64
)

// readAll gives a file's content in order, in pieces, as the server sends it. size is what is
// expected, for reading ahead; the file is read to its end, however long that is. each must not
// keep the data. An error is the server's, or the one that each gave, and no request is on its way
// any more when it is returned.
func readAll(f *wire.Handle, size int64, each func([]byte) error) error {
	type piece struct {
		off  int64
		data []byte
		err  error
	}
	ask := func(off int64) chan piece {
		got := make(chan piece, 1)
		go func() {
			data, err := f.Read(off, readSize)
			got <- piece{off, data, err}
		}()
		return got
	}
	var queue []chan piece
	next, at := int64(0), int64(0)
	for {
		for len(queue) < readAhead && (next <= size || len(queue) == 0) {
			queue = append(queue, ask(next))
			next += readSize
		}
		p := <-queue[0]
		queue = queue[1:]
		if p.err != nil {
			drain(queue, func(c chan piece) { <-c })
			return endOf(p.err)
		}
		if err := each(p.data); err != nil {
			drain(queue, func(c chan piece) { <-c })
			return err
		}
		at += int64(len(p.data))
		if len(p.data) < readSize { // a short read: what was asked for behind it does not follow it
			drain(queue, func(c chan piece) { <-c })
			queue, next = nil, at
		}
	}
}

// drain waits for answers that nobody needs, so that no goroutine outlives the call.
func drain[T any](queue []T, take func(T)) {
	for _, q := range queue {
		take(q)
	}
}

// readSmall reads one of our own files, up to maxSmall. fs.ErrNotExist says that there is none,
// EFBIG that somebody has put there what cannot be ours.
func (h *host) readSmall(path string) ([]byte, error) {
	return h.readUpTo(path, maxSmall, func(int64) {})
}

// readUpTo is readSmall that asks for room, once, before it has more than small bytes in memory:
// the index bounds so what its nodes take together. A file that is larger than its server said has
// room for all that may be.
func (h *host) readUpTo(path string, small int64, room func(size int64)) ([]byte, error) {
	f, err := h.any().Open(h.abs(path), wire.OpenRead, wire.Attrs{})
	if err != nil {
		return nil, err
	}
	defer f.Release()
	all, size, err := f.Begin()
	if err != nil || int64(len(all)) == size {
		return all, err
	}
	all = nil
	if size > small && size <= maxSmall {
		room(size)
		all, small = make([]byte, 0, size), maxSmall
	}
	err = readAll(f, max(size, 0), func(data []byte) error {
		if len(all) > maxSmall {
			return fmt.Errorf("%s is too large: %w", path, unix.EFBIG)
		}
		if int64(len(all)+len(data)) > small {
			room(maxSmall)
			small = math.MaxInt64
		}
		all = append(all, data...)
		return nil
	})
	return all, err
}

// maxSmall bounds what is read into memory of a file of ours, which somebody may have put there: nodes and journals
// are far smaller.
const maxSmall = 64 << 20

// ensureDir makes a directory of ours, for nobody but the account, if it is not there. Anything
// else under that name is an error: a link there would lead our files elsewhere.
func (h *host) ensureDir(path string) error {
	c := h.any()
	err := c.Mkdir(h.abs(path), wire.Attrs{Flags: wire.HasMode, Mode: 0o700})
	if err == nil {
		return nil
	}
	a, lerr := c.Lstat(h.abs(path))
	switch {
	case lerr != nil:
		return err
	case a.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is no directory: %w", path, unix.ENOTDIR)
	}
	return nil
}

// kindOf is what the attributes are of.
func kindOf(a wire.Attrs) slave.Kind { return slave.KindOf(a.Mode) }

// list reads a directory, in the pieces in which it comes, and calls each for every name but . and
// .., one after the other. The more pieces there are, the more are asked for ahead; what a server
// answers to one of these after another met the end counts too. It ends with the error of each, or
// with the server's; names with a slash, which no file can have, are left out. A server that lists
// more than mostListed entries is given up with E2BIG.
func (h *host) list(path string, each func(wire.Name) error) error {
	d, err := h.any().Opendir(h.abs(path))
	if err != nil {
		return err
	}
	defer d.Release()
	var queue []asked
	ahead, over, total := 2, false, int64(0) // one for the names, and one for the end
	for !over || len(queue) > 0 {
		for !over && len(queue) < ahead && (len(queue) == 0 || h.mayAskAhead()) {
			queue = append(queue, h.ask(d, len(queue) > 0))
		}
		p := h.answer(queue[0])
		queue = queue[1:]
		ahead = min(2*ahead, mostAhead)
		switch total += int64(p.list.Len()); {
		case p.err != nil:
			over = true
			err = errors.Join(err, endOf(p.err))
			continue
		case p.list.Len() == 0: // which would never end
			over = true
		case total > cmp.Or(h.most, mostListed):
			err = errors.Join(err, fmt.Errorf("the server lists more than %d entries in %q: if there are as many, split that directory: %w",
				cmp.Or(h.most, mostListed), path, unix.E2BIG))
		}
		if err == nil {
			err = p.list.Each(func(n wire.Name) error {
				if n.Name == "." || n.Name == ".." || strings.ContainsRune(n.Name, '/') {
					return nil
				}
				return each(n)
			})
		}
		over = over || err != nil
	}
	return err
}

const (
	// mostAhead bounds the requests that are made ahead for one directory, allAhead those for all that are listed at the same
	// time, and mostHeld is for the answers: each may be as large as a packet.
	mostAhead = 16
	allAhead  = 64
	mostHeld  = 4 << 20
	// mostListed is how many entries a server may list in a directory. A list that never ends would hold everything up.
	mostListed = 20_000_000
)

// asked is a request for names, whose answer is awaited. Whoever asked takes the answer, also when
// it is not needed any more: the counts of what is on its way depend on it.
type asked struct {
	got   chan names
	ahead bool // it counts as one that was made ahead
}

// names are what one request gave of a directory.
type names struct {
	list wire.Names
	err  error
}

// ask asks for the next names, and does not wait. answer must follow.
func (h *host) ask(d *wire.Handle, ahead bool) asked {
	if ahead {
		h.ahead.Add(1)
	}
	got := make(chan names, 1)
	go func() {
		list, err := d.Readdir()
		h.held.Add(list.Size())
		got <- names{list, err}
	}()
	return asked{got, ahead}
}

// mayAskAhead tells whether one more request may be on its way before its answer is needed. The
// bounds are for all listings together.
func (h *host) mayAskAhead() bool { return h.ahead.Load() < allAhead && h.held.Load() < mostHeld }

// answer waits for what was asked, and gives its place to others. It is called once for each.
func (h *host) answer(a asked) names {
	p := <-a.got
	h.held.Add(-p.list.Size())
	if a.ahead {
		h.ahead.Add(-1)
	}
	return p
}

// endOf takes the end of a file or directory for what it is.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// readlink tells where a link leads, within the bounds of a path: the server could send anything.
func (h *host) readlink(path string) (string, error) {
	target, err := h.any().Readlink(h.abs(path))
	if len(target) > unix.PathMax {
		return "", fmt.Errorf("the server says that the link %q leads to a path of %d bytes: %w", path, len(target), unix.ENAMETOOLONG)
	}
	return target, err
}

// noFile tells that nothing is there, or that nothing can be: what lies above it is no directory.
func noFile(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// ignoreAbsent makes removing what is gone a success.
func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
