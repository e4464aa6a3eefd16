package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"georep/integration/harness/tree"
)

// named is a tree with one inode that has very many names in it.
type named struct {
	live
	theirs  string // rsync's slave
	names   int
	site    *site
	session *session
	beside  []float64 // ms that changes elsewhere took while the inode got its names, or changed
	probed  int
}

// namesRow: one inode gets very many names, changes, and is brought over by a first sync. What changes elsewhere meanwhile is measured.
func namesRow(l *lab, t *host, rep *report) {
	n := l.scaled(20_000, 2000)
	dir := l.memory(t, 512<<20)
	v := &named{live: live{master: mkdir(t, dir, "master"), slave: mkdir(t, dir, "georep")}, theirs: mkdir(t, dir, "rsync"), names: n,
		site: l.direct(t)}
	t.must(tree.Many(v.master, probes, probes, 100))
	v.session = v.site.newSession(t, v.master, v.slave)
	t.must(l.within(t, v.session.start))
	t.must(l.within(t, func(ctx context.Context) error { return v.site.rsync(ctx, v.master, v.theirs) }))
	what := thousands(n) + " names of one file"
	made := l.contest(t, v.ours(l, t, v.make), v.rsync())
	beside := v.taken()
	changed := l.contest(t, v.ours(l, t, v.change), v.rsync())
	besideChange := v.taken()
	first := l.contest(t, v.firstSync(t), contender{name: "rsync",
		prepare: func(int) error { return anew(v.theirs) },
		run:     v.rsync().run,
		verify:  func(int) error { return equal(v.master, v.theirs) }})
	rep.lines = append(rep.lines,
		line{work: "first sync, files with " + what, ours: first[0], peers: first[1:], unit: "s", goal: ratioGoal(1.5)},
		line{work: what + ", made live", ours: made[0], peers: made[1:], unit: "s", goal: ratioGoal(1.5)},
		line{work: "content of " + what, ours: changed[0], peers: changed[1:], unit: "s", goal: ratioGoal(1.5)},
		line{work: "write elsewhere to visible while names are made, p50", ours: beside.at(0.5), unit: "ms",
			note: fmt.Sprintf("of %d writes, one after the other", len(beside.values))},
		line{work: "the same, the longest", ours: beside.at(1), unit: "ms", goal: valueGoal("≤ 1 s", 1000)},
		line{work: "the same while the content changes, the longest", ours: besideChange.at(1), unit: "ms", goal: valueGoal("≤ 1 s", 1000)})
}

// anew makes an empty directory of one that may hold something.
func anew(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Mkdir(dir, 0o755)
}

// name is one of the names of a round's inode: twenty directories share them.
func (v *named) name(round, i int) string {
	return fmt.Sprintf("round%d/d%02d/n%06d", round, i%20, i)
}

// make makes the names of a round's inode.
func (v *named) make(round int) error {
	first := filepath.Join(v.master, v.name(round, 0))
	for i := range v.names {
		path := filepath.Join(v.master, v.name(round, i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if i == 0 {
			if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
				return err
			}
			continue
		}
		if err := os.Link(first, path); err != nil {
			return err
		}
	}
	return nil
}

// change changes the content of a round's inode.
func (v *named) change(round int) error {
	return os.WriteFile(filepath.Join(v.master, v.name(round, v.names/2)), []byte("changed in round "+fmt.Sprint(round)), 0o644)
}

// same tells whether the slave has all names of a round's inode, with its content.
func (v *named) same(round int) (bool, error) {
	want, err := os.ReadFile(filepath.Join(v.master, v.name(round, 0)))
	if err != nil {
		return false, err
	}
	for _, i := range []int{0, 1, v.names / 3, v.names - 1} {
		path := filepath.Join(v.slave, v.name(round, i))
		var st syscall.Stat_t
		if got, err := os.ReadFile(path); err != nil || string(got) != string(want) {
			return false, nil
		}
		if err := syscall.Stat(path, &st); err != nil || int(st.Nlink) != v.names {
			return false, nil
		}
	}
	return true, nil
}

// ours is a change that a live session brings over, with writes elsewhere meanwhile.
func (v *named) ours(l *lab, t *host, do func(round int) error) contender {
	return contender{
		name: "georep",
		run: func(ctx context.Context, round int) (result, error) {
			return v.site.measured(func() error {
				if err := do(round); err != nil {
					return err
				}
				return wait(ctx, 20*time.Millisecond, func() (bool, error) {
					if err := v.probe(ctx); err != nil {
						return false, err
					}
					return v.same(round)
				})
			})
		},
		verify: func(int) error {
			err := l.within(t, func(ctx context.Context) error { return v.session.inStep(ctx, time.Now()) })
			if err != nil {
				return err
			}
			return equal(v.master, v.slave)
		},
	}
}

// probe writes to a file elsewhere, and waits until that is visible.
func (v *named) probe(ctx context.Context) error {
	v.probed++
	file, content := fmt.Sprintf("d000000/f%06d", v.probed%probes), fmt.Sprint("number ", v.probed)
	took, err := clocked(func() error {
		if err := os.WriteFile(filepath.Join(v.master, file), []byte(content), 0o644); err != nil {
			return err
		}
		return visible(ctx, filepath.Join(v.slave, file), content)
	})
	v.beside = append(v.beside, took*1000)
	return err
}

// taken gives the probes since it was asked last.
func (v *named) taken() series {
	out := series{name: "georep", values: v.beside}
	v.beside = nil
	return out
}

// rsync brings over the same change.
func (v *named) rsync() contender {
	return contender{name: "rsync", run: func(ctx context.Context, _ int) (result, error) {
		return v.site.measured(func() error { return v.site.rsync(ctx, v.master, v.theirs) })
	}}
}

// firstSync brings over all files of all rounds.
func (v *named) firstSync(t *host) contender {
	return contender{
		name: "georep",
		prepare: func(int) error {
			if err := v.session.stop(t.ctx); err != nil {
				return err
			}
			v.session = v.site.newSession(t, v.master, v.slave)
			return anew(v.slave)
		},
		run: func(ctx context.Context, _ int) (result, error) {
			return v.site.measured(func() error { return v.session.start(ctx) })
		},
		verify: func(int) error { return equal(v.master, v.slave) },
	}
}
