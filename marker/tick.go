package marker

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	"georep/marker/xtime"
)

// tickFile is made by whoever wants a tick, with a name for it in it.
const tickFile = "marker.tick"

// Tick is an xtime that no entry has: when it was taken, every mark before it was written, and all marks to come are later. A
// session takes one as the time since when its filter counts.
type Tick struct {
	Name string     `json:"name"`
	Time xtime.Time `json:"time"`
}

// TakeTick asks the volume's living marker for a Tick. ErrNotRunning, wrapped, means that there is none: Once takes it then, which
// was asked for, and TakeTick gives it when it is called again with the same name.
func TakeTick(ctx context.Context, dir, name string) (xtime.Time, error) {
	for {
		s, err := ReadStatus(dir)
		if err == nil && s.Tick.Name == name {
			return s.Tick.Time, nil
		}
		// Again and again: another session may have asked meanwhile.
		if err := os.WriteFile(filepath.Join(dir, tickFile), []byte(name), 0o644); err != nil {
			return 0, fmt.Errorf("ask the marker for a tick: %w", err)
		}
		if !Alive(dir) {
			return 0, fmt.Errorf("ask for a tick in %s: %w", dir, ErrNotRunning)
		}
		if err := pause(ctx, waitPoll); err != nil {
			return 0, fmt.Errorf("ask for a tick in %s: %w", dir, err)
		}
	}
}

// NewTickName is one that nobody has asked by.
func NewTickName() string { return rand.Text() }

// tick takes one where somebody has asked. The lock makes it one: no mark is half written then.
func (c *core) tick() error {
	path := filepath.Join(c.dir, tickFile)
	name, err := os.ReadFile(path)
	if err != nil || len(name) == 0 || len(name) > 64 {
		return nil // the usual case: nobody has
	}
	if err := os.Remove(path); err != nil {
		return nil // tried again at the next status
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.clock.Next()
	if err == nil {
		c.asked.ticked = Tick{string(name), t}
	}
	return err
}
