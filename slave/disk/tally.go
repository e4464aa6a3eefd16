package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/apply"
)

// usageFile has what the slave holds, in .georep: bytes, entries, when that was counted, and 1 where a session has it open, or
// had, and did not end in order. A slave without limits has none.
const usageFile = "usage"

const (
	usageEvery = 10 * time.Second // how often it is put on record while it changes
	// How often what a slave holds is counted anew: where nothing was refused, and where something was.
	tallyEvery = 24 * time.Hour
	tallySoon  = 10 * time.Minute
	// quickTally is how many entries are counted before a session begins. A slave with more takes nothing before it has been
	// counted once.
	quickTally = 20_000
	quickTime  = 5 * time.Second
	// A count rests for tallyRest after so many entries, unless nothing can go on without it.
	tallyStep = 1000
	tallyRest = 10 * time.Millisecond
)

// census counts what the slave holds, and keeps that on record. It owns the file usage; what is
// counted between two of its counts the store's sys does (usage). It has a goroutine of its own
// while the slave is open, and works through usage, which has a lock.
type census struct{ *store }

// limit begins to hold the slave to its limits, where its policy has any. A slave that is too large
// to be counted at once is open, but takes nothing before it has been counted in the background.
func (c *census) limit(o Options, own func(attr string) bool) error {
	limit := limitsOf(o.Policy)
	if limit == (room{}) {
		if _, err := c.base.Stat(usageFile); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return ignoreAbsent(c.sys.unlink(place{c.base, usageFile})) // it will be out of date
	}
	fs, err := c.dir.Statfs()
	if err != nil {
		return err
	}
	u := &usage{
		layout: layout{base: c.base, partial: c.partial, staging: c.staging, parked: c.parked, trash: c.trash,
			books: map[*beneath.Dir]bool{c.linksDir: true, c.pending: true, c.recordsDir: true}},
		knows:     knows{prompt: promptBlocks[int64(fs.Type)], shows: showsXattrs[int64(fs.Type)], own: own},
		allowance: allowance{limit: limit, again: o.PolicyNow}, refused: o.Refused,
	}
	known, err := c.readUsage(u)
	if err != nil {
		return err
	}
	if u.blind = !known; u.blind {
		began := time.Now()
		held, err := c.tally(u, quickTally, func() error {
			if time.Since(began) > quickTime {
				return errMany
			}
			return nil
		})
		if err != nil && !errors.Is(err, errMany) {
			return err
		}
		if err == nil {
			u.held, u.blind, u.counted = held, false, time.Now()
		}
	}
	c.sys.used = u
	c.weighIndex(u)
	return c.openUsage()
}

// openUsage puts on record that a session has the slave open. A file system without room for that must not keep it from being
// opened, or nothing could be removed any more: the record goes, and what the slave holds is counted anew should there be none later.
func (c *census) openUsage() error {
	err := c.saveUsage(true)
	if !slave.OutOfRoom(err) {
		return err
	}
	return ignoreAbsent(c.sys.unlink(place{c.base, usageFile}))
}

// promptBlocks are the file systems that tell at once how many blocks a file needs, also of what is not on the device yet.
var promptBlocks = map[int64]bool{unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true,
	unix.F2FS_SUPER_MAGIC: true, unix.TMPFS_MAGIC: true}

// weighIndex looks how large places/ is: a few files, which are written without a word.
func (c *census) weighIndex(u *usage) {
	bytes := int64(0)
	err := eachName(c.indexDir, func(name string) error {
		if st, err := c.indexDir.Stat(name); err == nil {
			bytes += int64(st.Blocks) * 512
		}
		return nil
	})
	if err != nil {
		return // it is weighed again soon
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.index = bytes
}

// readUsage reads what is on record. What no session left in order has to be counted anew, and is
// believed until then. A file that cannot be parsed is none, and everything is counted anew.
func (c *census) readUsage(u *usage) (known bool, err error) {
	text, err := readSmall(c.base, usageFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var at, open int64
	if n, err := fmt.Sscan(string(text), &u.held.bytes, &u.held.entries, &at, &open); n != 4 || err != nil {
		u.held = room{}
		return false, nil
	}
	u.counted, u.short, u.torn = time.Unix(at, 0), false, open != 0
	return true, nil
}

// Held tells what the slave at path held when that was put on record last; known is false where its
// policy has no limits, or where it was never counted. It takes no lock, and may run while a
// session has the slave open.
func Held(path string) (bytes, entries int64, known bool) {
	d, err := beneath.OpenRoot(path, true)
	if err != nil {
		return 0, 0, false
	}
	defer d.Close()
	c := &census{store: &store{}}
	if c.base, err = d.OpenPath(slave.Reserved); err != nil {
		return 0, 0, false
	}
	defer c.base.Close()
	u := &usage{}
	known, err = c.readUsage(u)
	return u.held.bytes, u.held.entries, known && err == nil
}

// saveUsage puts what the slave holds on record. Where that fails it has changed still, and is
// tried again. The file says whether a session has the slave open, so a session that is killed is
// found out by the next.
func (c *census) saveUsage(open bool) (err error) {
	u := c.sys.used
	defer func() {
		if err != nil {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.changed = true
		}
	}()
	u.mu.Lock()
	held, at, blind, torn := u.held, u.counted.Unix(), u.blind, u.torn
	u.changed = false
	u.mu.Unlock()
	if blind {
		return nil
	}
	still := 0
	if open || torn {
		still = 1
	}
	const temp = usageFile + ".new"
	if err := ignoreAbsent(c.sys.unlink(place{c.base, temp})); err != nil {
		return err
	}
	text := fmt.Sprintf("%d %d %d %d\n", held.bytes, held.entries, at, still)
	if err := c.writeNew(place{c.base, temp}, []byte(text), true); err != nil {
		return err
	}
	return c.sys.rename(place{c.base, temp}, place{c.base, usageFile}, 0)
}

// keep counts what the slave holds where that is due, and puts it on record, until the session
// ends. It is a goroutine of its own, so that counting holds up no operation.
func (c *census) keep() {
	u := c.sys.used
	if u == nil {
		return
	}
	tick := time.NewTicker(usageEvery)
	defer tick.Stop()
	for {
		c.weighIndex(u)
		if u.due(time.Now()) {
			c.recount(u)
		}
		if err := c.saveIfChanged(u); err != nil {
			c.log.Warn().Str("slave", c.info.Path).Err(err).Msg("the slave's usage cannot be recorded")
		}
		select {
		case <-tick.C:
		case <-c.done:
			return
		case <-c.closing:
			return
		}
	}
}

// end puts on record what the slave holds at the end of a session. A call that is still at work goes on changing that.
func (c *census) end() {
	if c.sys.used == nil || c.Err() != nil {
		return
	}
	if err := c.saveUsage(c.atWork()); err != nil {
		c.log.Warn().Str("slave", c.info.Path).Err(err).Msg("the slave's usage cannot be recorded, and will be counted anew")
	}
}

// saveIfChanged costs nothing in an idle session.
func (c *census) saveIfChanged(u *usage) error {
	u.mu.Lock()
	changed := u.changed
	u.mu.Unlock()
	if !changed {
		return nil
	}
	return c.saveUsage(true)
}

// due tells whether it is time to count anew. A clock that was set back makes it due, too.
func (u *usage) due(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	age := now.Sub(u.counted)
	return u.blind || u.torn || age >= tallyEvery || age < 0 || u.short && age >= tallySoon
}

// recount counts all that the slave holds. What is made meanwhile may be counted twice; what goes
// may be counted still. Its outcome replaces what was added up since the last count, whose small
// errors it corrects. An error leaves that as it was.
func (c *census) recount(u *usage) {
	blind := u.begin()
	held, err := c.tally(u, 0, func() error {
		if blind {
			return c.live(context.Background())
		}
		return c.rest(tallyRest)
	})
	if err != nil {
		if c.unclosed() {
			c.log.Warn().Str("slave", c.info.Path).Err(err).Msg("the slave's usage cannot be counted")
		}
		return
	}
	u.finish(held)
}

// begin begins a count, and tells whether it is the first one.
func (u *usage) begin() (blind bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.added, u.short, u.counting, u.missed = room{}, false, true, false
	return u.blind
}

// finish takes over what a count came to. One that may have missed something lowers nothing; the
// first one is then made again. Too much is safe, since it only refuses early; too little would let
// the slave grow beyond its limit.
func (u *usage) finish(held room) {
	u.mu.Lock()
	defer u.mu.Unlock()
	held = held.plus(u.added)
	if u.missed && !u.blind {
		held = held.atLeast(u.held)
	}
	u.held, u.torn = held, u.missed && u.blind
	u.blind, u.counting, u.changed, u.counted = false, false, true, time.Now()
}

// moved tells a count that something has another place, or one more: it may have looked there already, and not yet where that was. A
// file counts once more then. What is removed goes to where the count looks last.
func (u *usage) moved(from, to place) {
	if u == nil || from.dir == u.staging || from.dir == u.base || to.dir == u.parked || to.dir == u.trash {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.counting {
		return
	}
	st, err := to.dir.Stat(to.name)
	if err != nil || st.IsDir() {
		u.missed = true
		return
	}
	u.added = u.added.plus(room{charge(&st), 1})
}

// errMany ends a count that has a bound.
var errMany = errors.New("more entries than are counted at once")

// tally counts what lies in the slave, and in .georep all that is the master's: at most so many
// entries, where most is not 0. pace is called after each step of them. What cannot be read does
// not count. The order is the reverse of that in which entries move, so that what moves during the
// count is met at least once.
func (c *census) tally(u *usage, most int64, pace func() error) (sum room, err error) {
	// From the last one to the first: what is made and removed meanwhile goes the same way.
	todo := []string{apply.Trash, apply.Parked, "", apply.Staging, apply.Partial, "links", "pending", "records"}
	for i, area := range todo {
		if area != "" {
			todo[i] = slave.Reserved + "/" + area
		}
	}
	for next := int64(tallyStep); len(todo) > 0; {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d, err := c.openList(dir)
		if err != nil {
			continue
		}
		below, err := c.tallyDir(u, dir, d, &sum)
		d.Close()
		if err != nil {
			continue
		}
		todo = append(todo, below...)
		if most > 0 && sum.entries > most {
			return sum, errMany
		}
		if sum.entries >= next {
			next = sum.entries + tallyStep
			if err := pace(); err != nil {
				return sum, err
			}
		}
	}
	return sum, nil
}

// tallyDir counts what lies in one directory, and gives the directories among that. An inode with
// several names counts for a share under each, so that all of them together count once.
func (c *census) tallyDir(u *usage, dir string, d *beneath.Dir, sum *room) (below []string, err error) {
	err = d.List(func(e beneath.Entry) error {
		path := beneath.Join(dir, e.Name)
		if path == slave.Reserved {
			return nil
		}
		st, err := d.Stat(e.Name)
		if err != nil || st.IsMount() {
			return nil // it is gone, or not the slave's
		}
		if st.IsDir() {
			below = append(below, path)
		}
		if sum.entries++; bookName(dir, e.Name) {
			sum.bytes += bookRoom(&st).bytes
			return nil
		}
		if st.IsDir() {
			st.Nlink = 1
		}
		n := int64(max(st.Nlink, 1))
		sum.bytes += (charge(&st) + u.hidden(d.At(e.Name)) + n - 1) / n // each name has its share
		return nil
	})
	return below, err
}
