package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"georep/integration/harness/compare"
	"georep/integration/harness/proxy"
	"georep/integration/harness/tree"
)

// look is how often a slave is looked at for one file, glance for very many.
const (
	look   = 250 * time.Microsecond
	glance = 5 * time.Millisecond
)

// live is something that keeps slave in step with master until the row ends.
type live struct {
	master, slave string
	start         func(ctx context.Context) error
	judge         compare.Options
}

// lenient is how lsyncd is judged: it leaves the times of directories behind.
var lenient = func() compare.Options {
	o := compare.Replica()
	o.IgnoreDirMtime, o.IgnoreRoot = true, true
	return o
}()

// visible waits until the slave's file has the content.
func visible(ctx context.Context, path, content string) error {
	return wait(ctx, look, func() (bool, error) {
		got, err := os.ReadFile(path)
		return err == nil && string(got) == content, nil
	})
}

// settled waits until slave and master are the same.
func (v *live) settled(ctx context.Context) error {
	err := compare.Wait(ctx, v.master, v.slave, v.judge)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

// probes is how many files take turns, so that each has been quiet for longer than settle when it is written to again.
const probes = 50

// latencies writes n times to one of some files, each time of another content, and gives the times until it is on the
// slave, in milliseconds. Between two writes there is a pause of no fixed length, so that nobody's clockwork is met in step.
func (v *live) latencies(ctx context.Context, n int) ([]float64, error) {
	random := rand.New(rand.NewPCG(1, 2))
	var took []float64
	for i := range n {
		probe := fmt.Sprintf("d000000/f%06d", i%probes)
		content := fmt.Sprintf("%d %s", i, strings.Repeat("x", i%100))
		s, err := clocked(func() error {
			if err := os.WriteFile(filepath.Join(v.master, probe), []byte(content), 0o644); err != nil {
				return err
			}
			return visible(ctx, filepath.Join(v.slave, probe), content)
		})
		if err != nil {
			return took, err
		}
		took = append(took, s*1000)
		if err := rest(ctx, time.Duration(20+random.IntN(60))*time.Millisecond); err != nil {
			return took, err
		}
	}
	return took, nil
}

// sampled starts v, lets it settle and takes n latencies. The trees must be the same in the end.
func (l *lab) sampled(t *host, name string, v live, n int) series {
	out := series{name: name}
	_, err := l.once(t, contender{name: name, run: func(ctx context.Context, _ int) (result, error) {
		err := v.start(ctx)
		if err == nil {
			err = v.settled(ctx)
		}
		if err == nil {
			out.values, err = v.latencies(ctx, n)
		}
		if err == nil {
			err = v.settled(ctx)
		}
		return result{}, err
	}}, 0)
	if err != nil {
		t.Logf("%s: %v", name, err)
		out.state = stateOf(err)
	}
	return out
}

// at is a series with nothing but a quantile of s.
func (s series) at(q float64) series {
	if s.ok() {
		s.values = []float64{quantile(s.values, q)}
	}
	return s
}

// latencyRow: each contender keeps a tree of its own in step that is idle but for the probe. lsyncd takes so long that it
// gets fewer samples.
func latencyRow(l *lab, t *host, rep *report) {
	samples, farSamples, tuned, plain := l.scaled(1000, 5), l.scaled(300, 5), l.scaled(60, 3), l.scaled(10, 0)
	dir := l.memory(t, 512<<20)
	trees := func(name string) live {
		v := live{master: mkdir(t, dir, name), slave: mkdir(t, dir, name+"-slave"), judge: compare.Replica()}
		t.must(tree.Many(v.master, l.scaled(1000, 2*probes), 100, 100))
		return v
	}
	withGeorep := func(which string, n int) series {
		v := trees("georep-" + which)
		session := l.over(t, which).newSession(t, v.master, v.slave)
		v.start = session.start
		out := l.sampled(t, "georep", v, n)
		session.stop(t.ctx) // the next one is to have the machine for itself; a session that failed may not be running
		return out
	}
	withLsyncd := func(name string, delay, n int) (out series) {
		v := trees(name)
		s := l.direct(t)
		// Stopped when it is measured, as georep is.
		if err := guarded(t.ctx, t.name, t.log, func(t *host) {
			v.start, v.judge = func(ctx context.Context) error { return s.lsyncd(ctx, t, &v, delay) }, lenient
			out = l.sampled(t, name, v, n)
		}); err != nil {
			t.Error(err)
		}
		return out
	}
	near := withGeorep(lan, samples)
	fast := withLsyncd("lsyncd delay 1 s", 1, tuned)
	slow := series{name: "lsyncd as it comes", state: "left out"} // at small scales: it waits 15 s before each
	if plain > 0 {
		slow = withLsyncd(slow.name, -1, plain)
	}
	far := withGeorep(wan, farSamples)
	for _, p := range []struct {
		name  string
		q     float64
		limit float64 // ms
	}{{"p50", 0.5, 50}, {"p99", 0.99, 250}} {
		rep.lines = append(rep.lines,
			line{work: "write to visible, LAN, " + p.name, ours: near.at(p.q), peers: []series{fast.at(p.q), slow.at(p.q)},
				unit: "ms", note: fmt.Sprintf("of %d writes for georep, %d for lsyncd with a delay of 1 s, %d as it comes",
					samples, tuned, plain),
				goal: valueGoal(fmt.Sprintf("≤ %v ms", p.limit), p.limit)},
			line{work: "write to visible, WAN, " + p.name, ours: far.at(p.q), unit: "ms",
				note: fmt.Sprintf("of %d writes; half a round trip is 50 ms", farSamples)})
	}
}

// burstRow writes many files at once below a tree that is in step.
func burstRow(l *lab, t *host, rep *report) {
	files := l.scaled(10_000, 20)
	dir := l.memory(t, 6*int64(files)*(56<<10)+256<<20) // with what georep keeps until it is in step
	s := l.direct(t)
	var writing []float64 // how long the writing itself took, of georep's rounds
	begin := func(name string) live {
		v := live{master: mkdir(t, dir, name), slave: mkdir(t, dir, name+"-slave"), judge: compare.Replica()}
		t.must(tree.Many(v.master, 100, 10, 100))
		return v
	}
	ours, theirs := begin("georep"), begin("lsyncd")
	session := s.newSession(t, ours.master, ours.slave)
	session.more = append(session.more, "--max-delete", "100") // the burst is removed again: nearly all of the tree
	ours.start = session.start
	theirs.start = func(ctx context.Context) error { return s.lsyncd(ctx, t, &theirs, 1) }
	theirs.judge = lenient
	burst := func(name string, v *live, wrote func(float64)) contender {
		started := false
		return contender{
			name: name,
			prepare: func(int) error {
				if !started {
					started = true
					if err := l.within(t, v.start); err != nil {
						return err
					}
				} else if err := os.RemoveAll(filepath.Join(v.master, "burst")); err != nil {
					return err
				}
				return l.within(t, v.settled)
			},
			run: func(ctx context.Context, round int) (result, error) {
				return s.measured(func() error {
					took, err := clocked(func() error { return burstFiles(filepath.Join(v.master, "burst"), files) })
					if round >= 0 {
						wrote(took)
					}
					if err != nil {
						return err
					}
					return whole(ctx, filepath.Join(v.slave, "burst"), files)
				})
			},
			verify: func(int) error { return l.within(t, v.settled) },
		}
	}
	out := l.contest(t, burst("georep", &ours, func(s float64) { writing = append(writing, s) }),
		burst("lsyncd delay 1 s", &theirs, func(float64) {}))
	rate, lag := float64(files)/out[0].mid(), out[0].mid()-median(writing)
	rep.lines = append(rep.lines, line{work: fmt.Sprintf("burst of %s files of 10–100 KiB", thousands(files)), ours: out[0],
		peers: out[1:], unit: "s",
		goal: goal{"≥ 20,000 files/s, lag < 1 s", func(*line) bool { return rate >= 20_000 && lag < 1 }},
		note: fmt.Sprintf("from the first write until all are there; georep: %s files/s, all there %s s after the last write",
			number(rate), number(lag))})
}

// burstFiles makes files of 10 to 100 KiB, a thousand a directory, as fast as one process can.
func burstFiles(dir string, files int) error {
	data := make([]byte, 200<<10)
	tree.Fill(data, 1)
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprintf("d%03d", i/1000))
		if i%1000 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		from, n := i*31%(90<<10), 10<<10+i*7919%(90<<10+1)
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%03d", i%1000)), data[from:from+n], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// whole waits until there are so many files in the directories of dir, none under a name that rsync gives to what is on
// its way.
func whole(ctx context.Context, dir string, files int) error {
	return wait(ctx, glance, func() (bool, error) {
		found := 0
		dirs, _ := os.ReadDir(dir) // may come later
		for _, d := range dirs {
			list, _ := os.ReadDir(filepath.Join(dir, d.Name()))
			for _, f := range list {
				if !strings.HasPrefix(f.Name(), ".") && !f.IsDir() {
					found++
				}
			}
		}
		return found >= files, nil
	})
}

// renameRow renames a directory with many files. The line counts the bytes and holds nothing back.
func renameRow(l *lab, t *host, rep *report) {
	files := l.scaled(10_000, 10)
	dir := l.memory(t, 8*int64(files)*4096)
	v := live{master: mkdir(t, dir, "master"), slave: mkdir(t, dir, "georep"), judge: compare.Replica()}
	theirs := mkdir(t, dir, "rsync")
	t.must(tree.Many(mkdir(t, v.master, "dir-0"), files, 1000, 4096))
	s := l.behind(t, proxy.Options{})
	session := s.newSession(t, v.master, v.slave)
	t.must(l.within(t, session.start))
	t.must(l.within(t, func(ctx context.Context) error { return s.rsync(ctx, v.master, theirs) }))
	renames := 0
	out := l.contest(t,
		contender{
			name: "georep",
			run: func(ctx context.Context, _ int) (result, error) {
				from, to := fmt.Sprintf("dir-%d", renames), fmt.Sprintf("dir-%d", renames+1)
				renames++
				r, err := s.measured(func() error {
					if err := os.Rename(filepath.Join(v.master, from), filepath.Join(v.master, to)); err != nil {
						return err
					}
					return moved(ctx, v.slave, from, to, files)
				})
				if err != nil {
					return r, err
				}
				// What follows until the slave is stamped is part of the bytes.
				before := s.wire()
				err = session.inStep(ctx, time.Now())
				r.wire += s.wire() - before
				return r, err
			},
			verify: func(int) error { return equal(v.master, v.slave) },
		},
		contender{ // of the same rename
			name: "rsync --delete",
			run: func(ctx context.Context, _ int) (result, error) {
				return s.measured(func() error { return s.rsync(ctx, v.master, theirs, "--delete") })
			},
			verify: func(int) error { return equal(v.master, theirs) },
		})
	rep.lines = append(rep.lines, line{work: fmt.Sprintf("rename of a directory of %s files", thousands(files)),
		ours: out[0], peers: out[1:], unit: "s", goal: goal{"< 0.3 s, < 100 KiB sent", func(l *line) bool {
			return l.ours.mid() < 0.3 && median(l.ours.wire) < 100<<10
		}}})
}

// moved waits until the slave has the directory under its new name alone.
func moved(ctx context.Context, slave, from, to string, files int) error {
	err := wait(ctx, glance, func() (bool, error) {
		_, err := os.Lstat(filepath.Join(slave, from))
		return os.IsNotExist(err), nil
	})
	if err != nil {
		return err
	}
	return whole(ctx, filepath.Join(slave, to), files)
}
