package marker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"georep/marker/statefile"
	"georep/marker/xtime"
)

// reserve is how far ahead of itself the clock writes down its floor: one durable write per so much time of marking,
// and the most by which xtimes are ahead of the wall clock after a crash.
const reserve = 2 * time.Second

// Clock hands out the xtimes of one volume, strictly increasing across restarts, crashes and steps of the wall clock
// (invariant 2). Before it hands out anything, a floor that lies beyond it is durable in its file. It may be used from
// any goroutine.
type Clock struct {
	// path is a file of eight bytes, in the order of an xtime. It is replaced and synced as a
	// whole.
	path  string
	files statefile.FS
	now   func() time.Time

	mu       sync.Mutex
	last     xtime.Time // handed out, or not to be handed out again
	reserved xtime.Time // what the file says
}

// OpenClock reads the floor from the file at path; a file that is not there is no floor. The clock also starts above
// floor, the newest xtime found on the tree.
func OpenClock(path string, floor xtime.Time) (*Clock, error) {
	return openClock(path, floor, time.Now, statefile.FS{})
}

// openClock is OpenClock with a wall clock and files that tests set. A damaged file is an error and
// not an absent one: a clock that started at the wall clock might hand out xtimes that workers have
// seen already.
func openClock(path string, floor xtime.Time, now func() time.Time, files statefile.FS) (*Clock, error) {
	c := &Clock{path: path, files: files, now: now, last: floor}
	b, err := files.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the clock's floor: %w", err)
	}
	recorded, err := xtime.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("clock file %s is damaged (remove it, and the clock starts above the root's xtime): %w", path, err)
	}
	c.last, c.reserved = max(c.last, recorded), recorded
	return c, nil
}

// Next returns an xtime later than every one before, and not earlier than now. It fails only when the floor cannot be
// written; nothing is handed out then.
func (c *Clock) Next() (xtime.Time, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	t := max(c.last.Next(), xtime.FromTime(now))
	if t > c.reserved {
		if err := c.write(max(xtime.FromTime(now.Add(reserve)), xtime.FromTime(t.Time().Add(reserve)))); err != nil {
			return 0, err
		}
	}
	c.last = t
	return t, nil
}

// Last is the newest xtime that was handed out, or the floor.
func (c *Clock) Last() xtime.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// Close writes down exactly what was handed out, so that the next start does not run ahead of the wall clock. The clock
// may still be used.
func (c *Clock) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == c.reserved {
		return nil
	}
	return c.write(c.last)
}

// write makes t the floor, durably, and only then counts it as reserved. mu is held. After an error
// nothing changed in memory, so the next call tries again.
func (c *Clock) write(t xtime.Time) error {
	b := binary.BigEndian.AppendUint64(nil, uint64(t))
	if err := c.files.Replace(c.path, b, true); err != nil {
		return fmt.Errorf("write the clock's floor %s: %w", c.path, err)
	}
	c.reserved = t
	return nil
}
