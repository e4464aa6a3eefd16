package mutate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/internal/at"
)

// Options of a Mutator. The zero value is the default mixture, as root, on at most 2,000 entries and 64 MiB.
type Options struct {
	// Profile names a mixture: "default", "links" (mostly hard links), "renames" (mostly renames and exchanges) or
	// "exchange" (mostly swaps, whiteouts and special files, in directories that move all the time).
	Profile string
	// Weights, when not nil, replaces the profile: only the named operations are drawn, as often as their weight says.
	// Operations lists the names.
	Weights map[string]int
	// Unprivileged leaves out what only root may do: devices, owners, trusted attributes, modes that lock the owner out.
	Unprivileged bool
	// MaxEntries, MaxBytes and MaxFile bound the tree's names, the sum of its file sizes (holes counted as data) and
	// the size of one file (1 MiB when 0).
	MaxEntries        int
	MaxBytes, MaxFile int64
	// MaxDepth bounds the depth of directories (10 when 0).
	MaxDepth int
	// OddNames is the share of names that are odd, one in so many (8 when 0, none when negative).
	OddNames int
	// FixedTimes gives everything an operation touches a modification time that depends on the step alone, so that two
	// runs of a seed give the same times too. It makes changes of its own, which a test of latency may not want.
	FixedTimes bool
	// History is how many operations String shows (64 when 0).
	History int
}

// ErrIdle is what Step returns when no operation that may be drawn can be done on the tree as it is.
var ErrIdle = errors.New("no operation applies")

// Mutator changes one tree. Step and Run must not be called by two goroutines at once; String and Steps may be called
// at any time.
type Mutator struct {
	seed  uint64
	opts  Options
	rng   *rand.Rand
	ops   []operation
	total int // of the weights
	model model
	// touched gathers, during a step, what FixedTimes must give a time.
	touched []*node

	mu    sync.Mutex
	steps int
	past  []string
}

// New prepares to change the tree at root, which must be an empty directory. Unknown profiles and operations are errors.
func New(root string, seed uint64, opts Options) (*Mutator, error) {
	setDefaults(&opts)
	if err := wantEmpty(root); err != nil {
		return nil, err
	}
	ops, total, err := choose(opts)
	if err != nil {
		return nil, err
	}
	return &Mutator{
		seed: seed, opts: opts, rng: rand.New(rand.NewPCG(seed, 0x67656f726570)), ops: ops, total: total,
		model: newModel(root),
	}, nil
}

// setDefaults fills in what the zero value of Options stands for.
func setDefaults(opts *Options) {
	set(&opts.MaxEntries, 2000)
	set(&opts.MaxBytes, 64<<20)
	set(&opts.MaxFile, 1<<20)
	set(&opts.MaxDepth, 10)
	set(&opts.OddNames, 8)
	set(&opts.History, 64)
}

func set[N int | int64](option *N, value N) {
	if *option == 0 {
		*option = value
	}
}

// wantEmpty refuses a directory that holds things the model does not know.
func wantEmpty(root string) error {
	dir, err := at.OpenRoot(root)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	names, err := at.Names(dir)
	if err == nil && len(names) > 0 {
		err = unix.ENOTEMPTY
	}
	if err != nil {
		return fmt.Errorf("mutate %q: %w", root, err)
	}
	return nil
}

// errSkip says that an operation has nothing to work on now.
var errSkip = errors.New("not applicable")

// Step does one operation and returns what it did, for people. An error other than ErrIdle means that the operation
// failed though the model allows it, and that model and tree may no longer agree: stop there.
func (m *Mutator) Step() (string, error) {
	for range 500 {
		op := m.draw()
		m.touched = m.touched[:0]
		did, err := op.run(m)
		if errors.Is(err, errSkip) {
			continue
		}
		if err == nil {
			err = m.fixTimes()
		}
		text := m.note(op.name + " " + did)
		if err != nil {
			return text, fmt.Errorf("seed %d, step %s: %w", m.seed, text, err)
		}
		return text, nil
	}
	return "", fmt.Errorf("seed %d, step %d: %w", m.seed, m.Steps(), ErrIdle)
}

// Run does n steps, or steps until ctx ends when n is 0, and rests for pace before each. The end of ctx is an error only
// when n steps were asked for.
func (m *Mutator) Run(ctx context.Context, n int, pace time.Duration) error {
	for i := 0; n == 0 || i < n; i++ {
		if err := rest(ctx, pace); err != nil {
			if n == 0 {
				return nil
			}
			return fmt.Errorf("after %d of %d steps: %w", i, n, err)
		}
		if _, err := m.Step(); err != nil {
			return err
		}
	}
	return nil
}

// rest waits for pace, if any, and returns the error of ctx once that has ended.
func rest(ctx context.Context, pace time.Duration) error {
	if pace <= 0 || ctx.Err() != nil {
		return ctx.Err()
	}
	timer := time.NewTimer(pace)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Steps returns the number of steps done.
func (m *Mutator) Steps() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.steps
}

// String gives the seed and the last operations, a line each, for a failure message.
func (m *Mutator) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("seed %d, %d steps, the last %d:\n  %s\n",
		m.seed, m.steps, len(m.past), strings.Join(m.past, "\n  "))
}

// note numbers an operation and remembers it.
func (m *Mutator) note(what string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steps++
	text := fmt.Sprintf("%d: %s", m.steps, what)
	m.past = append(m.past, text)
	if len(m.past) > m.opts.History {
		m.past = append(m.past[:0], m.past[len(m.past)-m.opts.History:]...)
	}
	return text
}

// fixTimes gives what the step touched, and is still there, the step's own time.
func (m *Mutator) fixTimes() error {
	if !m.opts.FixedTimes {
		return nil
	}
	step := int64(m.Steps())
	for _, n := range m.touched {
		if n.gone {
			continue
		}
		if err := setTime(m.model.path(n), 1_600_000_000+step, step*7919%1_000_000_000); err != nil {
			return err
		}
	}
	return nil
}

// setTime sets both times of a path, of a symlink itself. utimensat takes any second; os.Chtimes ends in 2262.
func setTime(path string, sec, nsec int64) error {
	ts := unix.Timespec{Sec: sec, Nsec: nsec}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimens", Path: path, Err: err}
	}
	return nil
}
