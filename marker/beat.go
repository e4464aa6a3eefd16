package marker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"georep/marker/coverage"
	"georep/marker/moment"
	"georep/marker/statefile"
	"georep/marker/xtime"
)

const (
	// slack covers what lies between a change's ctime and its event: the tick of the kernel's clock, and a write that
	// was under way.
	slack = 2 * time.Second
	// rebootSlack covers marks that a power cut took from the file system's journal though the heartbeat survived.
	rebootSlack = 10 * time.Minute
)

// heartbeat is the durable record of how far everything is marked.
type heartbeat struct {
	// All times are by the wall clock as it was set when the heartbeat was written. BootOffset
	// tells, within one run of the machine, how far it was set since.
	Time       time.Time  `json:"time"`        // every change before it is marked
	Xtime      xtime.Time `json:"xtime"`       // with at most this
	BootID     string     `json:"boot_id"`     // of the machine's run
	BootOffset int64      `json:"boot_offset"` // ns from the machine's start clock to the wall clock, at Time
	SlowScan   time.Time  `json:"slow_scan"`   // start of the last complete scan for what events never tell
	Entries    int64      `json:"entries"`     // at the last full scan; -1 unknown
}

// beats keeps the heartbeat: it advances when the source is drained, and stands still while something before it is
// known or feared to be unmarked. It may be used from any goroutine.
type beats struct {
	path     string
	files    statefile.FS
	bootID   string
	cover    *coverage.Coverage    // what the heartbeat is about
	retrying func() int64          // marks to be tried again
	bound    func() *moment.Moment // up to where it may move; nil: any
	// It has room for one value, and nobody waits to put one in: whoever reads it looks at the
	// heartbeat itself.
	caught chan struct{} // has a value when the heartbeat moved for the first time, or by more than a second, or somebody waits
	urgent atomic.Bool   // somebody waits

	mu    sync.Mutex
	now   heartbeat // as of now
	moved bool      // since the marker was started
	// Losses are counted, so that a scan that began before a later loss does not count as having
	// found it.
	lost    int // how often events were lost; the start counts
	found   int // the value of lost up to which a scan has found what was lost
	written heartbeat
}

// openBeats reads the last heartbeat; ok tells whether there is one. A damaged record is none: the
// caller takes a new volume mark then, and everything is compared once. An error means that the
// record may be there and could not be read, and the marker must not begin.
func openBeats(dir string, files statefile.FS, cover *coverage.Coverage, owing func() int64) (b *beats, ok bool, err error) {
	b = &beats{path: filepath.Join(dir, heartbeatFile), files: files, cover: cover, retrying: owing, caught: make(chan struct{}, 1),
		bound: func() *moment.Moment { return nil },
		now:   heartbeat{Entries: -1}}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, false, fmt.Errorf("tell one run of the machine from another: %w", err)
	}
	b.bootID = strings.TrimSpace(string(id))
	content, err := files.Read(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read the heartbeat: %w", err)
	}
	// A damaged record is as good as none: everything is compared then.
	if json.Unmarshal(content, &b.now) != nil || b.now.Time.IsZero() {
		b.now = heartbeat{Entries: -1}
		return b, false, nil
	}
	b.written = b.now
	return b, true, cover.Load()
}

// since tells from which ctime on a scan has to look for what the heartbeat does not cover. ok is
// false when the clock moved so that no ctime can tell. It is earlier than the heartbeat by slack,
// and after a reboot by rebootSlack. A file system that lost marks in a power cut is thus scanned
// again from before they were made.
func (b *beats) since(m moment.Moment) (from time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	from = b.now.Time.Add(-slack)
	if b.now.BootID != b.bootID {
		return from.Add(-rebootSlack), !m.Wall.Before(b.now.Time)
	}
	// Within one run of the machine a step back of the wall clock is known exactly.
	if step := m.Offset - b.now.BootOffset; step < 0 {
		from = from.Add(time.Duration(step))
	}
	return from, true
}

// setBack takes the heartbeat for what it is on a clock that was set back since. As it was written, it would lie in the
// future, or nearer to now than it is, and claim what nobody has marked.
func (h *heartbeat) setBack(bootID string, m moment.Moment) {
	step := time.Duration(m.Offset - h.BootOffset)
	if h.BootID != bootID || step > -moment.Tremble || h.Time.IsZero() {
		return
	}
	h.Time, h.BootOffset = h.Time.Add(step), m.Offset
}

// drained says that everything that happened before m is marked, with xtimes up to x, unless it was
// lost. It does nothing while something is known to be unmarked: a loss that no scan has found yet,
// or a mark to be tried again. It never goes beyond bound, and never back.
func (b *beats) drained(m moment.Moment, x xtime.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lost > b.found || b.retrying() > 0 {
		return
	}
	if up := b.bound(); up != nil && up.Boot() < m.Boot() {
		m = *up
		if m.Wall.IsZero() || b.now.BootID == b.bootID && m.Boot() <= b.now.Time.UnixNano()-b.now.BootOffset {
			return
		}
	}
	if b.urgent.CompareAndSwap(true, false) || !b.moved || m.Wall.Sub(b.now.Time) > keepEach {
		b.moved = true
		select {
		case b.caught <- struct{}{}:
		default:
		}
	}
	b.now.Time, b.now.Xtime, b.now.BootID, b.now.BootOffset = m.Wall, x, b.bootID, m.Offset
}

// lose says that changes after the heartbeat went unseen. From now on the heartbeat stands still,
// until a scan that began after this call is complete.
func (b *beats) lose() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost++
}

// losses counts the losses so far, for a scan that is about to begin; missing tells whether one is needed.
func (b *beats) losses() (count int, missing bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lost, b.lost > b.found
}

// reset starts anew at m: everything before counts as changed, whatever was lost.
func (b *beats) reset(m moment.Moment, x xtime.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.found = b.lost
	b.cover.CoverAll()
	b.now = heartbeat{Time: m.Wall, Xtime: x, BootID: b.bootID, BootOffset: m.Offset, Entries: -1}
}

// scanned says that a complete scan, begun at t after so many losses, found what they had lost.
func (b *beats) scanned(losses int, t time.Time, entries int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.found, b.now.SlowScan, b.now.Entries = max(b.found, losses), t, entries
}

// get gives the heartbeat by the clock as it is set now.
func (b *beats) get() heartbeat {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now.setBack(b.bootID, moment.Now())
	return b.now
}

// save makes the heartbeat durable. The coverage is written first. A heartbeat that survives a
// crash without its coverage would vouch for directories that a scan has not met; the other way
// round only costs marks. It does nothing where nothing has changed, and must not be called by two
// goroutines at once.
func (b *beats) save() error {
	now := b.get()
	if now.Time.IsZero() || now == b.written {
		return nil
	}
	content, err := json.Marshal(now)
	if err == nil {
		err = b.cover.Save()
	}
	if err != nil {
		return err
	}
	if err := b.files.Replace(b.path, content, true); err != nil {
		return fmt.Errorf("write the heartbeat: %w", err)
	}
	b.written = now
	return nil
}
