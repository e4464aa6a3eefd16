package marker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"georep/marker/statefile"
	"georep/marker/xtime"
)

// Status is what a marker tells about itself, each second.
type Status struct {
	PID    int    `json:"pid"`
	Source string `json:"source"`           // SourceFanotify, SourceInotify or SourceScan
	Reason string `json:"reason,omitempty"` // why it is no better one, or why the heartbeat stands still

	// Every change that happened before Heartbeat is marked, with an xtime of at most HeartbeatXtime; marks to come
	// get later ones.
	Heartbeat      time.Time  `json:"heartbeat"`
	HeartbeatXtime xtime.Time `json:"heartbeat_xtime"`
	VolumeMark     xtime.Time `json:"volume_mark"`

	Entries  int64 `json:"entries"`  // below the root, at the last full scan; -1 before the first
	Scanning bool  `json:"scanning"` // a scan is under way

	// Unmarked counts the marks that were refused for good (an immutable file, say) since the start; a few are named.
	Unmarked       int64    `json:"unmarked"`
	UnmarkedSample []string `json:"unmarked_sample,omitempty"`
	Retrying       int      `json:"retrying"` // marks that failed and will be tried again
	// Marks is how many batches of changes were marked since the start.
	Marks int64 `json:"marks"`
	// Overflows is how often the kernel dropped events since the start.
	Overflows int64 `json:"overflows,omitempty"`
	// Confined says, for people, what confines the marker's process; "" where nothing does.
	Confined string `json:"confined,omitempty"`
	// Hidden is why writes that raise no event may stay unseen while the file is open; "" where they do not.
	Hidden string `json:"hidden_writers,omitempty"`
	// HiddenAt is when that was so last. What was written before may be unmarked though Heartbeat is as late.
	HiddenAt time.Time `json:"hidden_writers_at,omitzero"`
	// Tick is the last that was asked for (TakeTick).
	Tick Tick `json:"tick,omitzero"`
}

// ReadStatus reads what the volume's marker wrote last, whether or not it still lives. fs.ErrNotExist, wrapped: there
// never was one.
func ReadStatus(dir string) (Status, error) {
	var s Status
	b, err := os.ReadFile(filepath.Join(dir, statusFile))
	if err != nil {
		return s, fmt.Errorf("read the marker's status: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read the marker's status %s: %w", filepath.Join(dir, statusFile), err)
	}
	return s, nil
}

// Alive tells whether a marker of the volume lives.
func Alive(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// waitPoll is how often WaitMark looks.
const waitPoll = 50 * time.Millisecond

// WaitMark waits until the volume's living marker says that everything that happened before t is marked. ErrNotRunning,
// wrapped, means that there is none any more; its Reason is then in the status. A heartbeat in the future is from before
// the clock was set back, and proves nothing.
func WaitMark(ctx context.Context, dir string, t time.Time) error {
	if err := askLook(dir); err != nil && Alive(dir) {
		return err
	}
	for {
		s, err := ReadStatus(dir)
		switch {
		case err == nil && s.Heartbeat.After(t) && !s.Heartbeat.After(time.Now()):
			return nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		case !Alive(dir):
			return fmt.Errorf("wait for a mark in %s: %w", dir, ErrNotRunning)
		}
		if err := pause(ctx, waitPoll); err != nil {
			return fmt.Errorf("wait for a mark in %s: %w", dir, err)
		}
	}
}

// askLook has the marker look at once at the files that are held open.
func askLook(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, lookFile), nil, 0o644); err != nil {
		return fmt.Errorf("ask the marker for a look: %w", err)
	}
	return nil
}

func writeStatus(files statefile.FS, dir string, s *Status) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return files.Replace(filepath.Join(dir, statusFile), append(b, '\n'), false)
}
