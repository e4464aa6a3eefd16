package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// errTimeout means that a contender took longer than it may.
var errTimeout = errors.New("timeout")

// errAbsent means that this machine does not have the contender's program.
var errAbsent = errors.New("not installed")

// errWrong means that a contender ended, but left something else than it should.
var errWrong = errors.New("wrong result")

// result is one run of one contender.
type result struct {
	seconds float64
	wire    int64 // bytes over the line in both directions; 0 where nobody counted
}

// contender is one of those that are compared in a row. prepare, where it is set, comes before each run and is not timed;
// verify comes after each run: an error from it makes the time worthless.
type contender struct {
	name    string
	prepare func(round int) error
	run     func(ctx context.Context, round int) (result, error)
	verify  func(round int) error
}

// series is what one contender achieved: in seconds, or what else its line says.
type series struct {
	name   string
	values []float64
	wire   []float64
	state  string // "timeout" and the like, when something went wrong; then values do not count
}

// ok tells whether the series has a value.
func (s *series) ok() bool { return s.state == "" && len(s.values) > 0 }

// mid is the median, NaN where there is no value.
func (s *series) mid() float64 {
	if !s.ok() {
		return math.NaN()
	}
	return median(s.values)
}

// median of some values; for an even number of them the mean of the two in the middle.
func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	if n == 0 {
		return math.NaN()
	}
	return (s[(n-1)/2] + s[n/2]) / 2
}

// quantile q of some values: the least of them that at least q of all do not exceed.
func quantile(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return math.NaN()
	}
	return s[min(max(int(math.Ceil(q*float64(len(s))))-1, 0), len(s)-1)]
}

// contest runs the contenders in turn, warm-up rounds first, and gives each one's series in the same order. A contender
// that fails does not run again.
func (l *lab) contest(t *host, contenders ...contender) []series {
	out := make([]series, len(contenders))
	for i := range contenders {
		out[i].name = contenders[i].name
	}
	for round := -l.cfg.warmup; round < l.cfg.runs; round++ {
		for i, c := range contenders {
			if out[i].state != "" {
				continue
			}
			r, err := l.once(t, c, round)
			if t.ctx.Err() != nil {
				t.Fatal(t.ctx.Err())
			}
			if err != nil {
				t.Logf("%s: %v", c.name, err)
				out[i].state = stateOf(err)
				continue
			}
			t.Logf("round %d: %s %.3f s", round, c.name, r.seconds)
			if round >= 0 {
				out[i].values, out[i].wire = append(out[i].values, r.seconds), append(out[i].wire, float64(r.wire))
			}
		}
	}
	return out
}

// stateOf is what the table says of a contender that has no result.
func stateOf(err error) string {
	for _, known := range []error{errWrong, errTimeout, errAbsent} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "failed"
}

// once is one run of one contender, with what belongs around it.
func (l *lab) once(t *host, c contender, round int) (result, error) {
	if c.prepare != nil {
		if err := c.prepare(round); err != nil {
			return result{}, fmt.Errorf("prepare: %w", err)
		}
	}
	var r result
	err := l.within(t, func(ctx context.Context) (err error) {
		r, err = c.run(ctx, round)
		return err
	})
	if err != nil {
		return r, err
	}
	if c.verify != nil {
		if err := c.verify(round); err != nil {
			return r, fmt.Errorf("%w: %w", errWrong, err)
		}
	}
	return r, nil
}

// within gives do the time that one run may take. What fails because that is over is errTimeout too.
func (l *lab) within(t *host, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(t.ctx, l.cfg.timeout, errTimeout)
	defer cancel()
	err := do(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errTimeout) {
		return fmt.Errorf("%w: %w", errTimeout, err)
	}
	return err
}

// clocked is how long do takes.
func clocked(do func() error) (float64, error) {
	begin := time.Now()
	err := do()
	return time.Since(begin).Seconds(), err
}

// wait looks every interval until done says so; the error is done's, or says that ctx ended.
func wait(ctx context.Context, interval time.Duration, done func() (bool, error)) error {
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if err := rest(ctx, interval); err != nil {
			return err
		}
	}
}

// rest lets some time pass.
func rest(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
