package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// grown is what was measured on a tree of some number of empty files, a thousand a directory. Each series has georep
// first and rsync second. Files are empty so that three trees of a million of them fit into memory.
type grown struct {
	first   []series // until the slave has all
	one     []series // one file written in a live session; rsync's run for the same
	ten     []series // ten files
	restart []series // nothing changed
	scan    []float64
	peaks   map[string]float64 // MiB
}

// grow measures a tree of so many files once, whoever asks.
func (l *lab) grow(t *host, files int) *grown {
	if g := l.grown[files]; g != nil {
		return g
	}
	g := &grown{}
	// With its own end, so that the memory is free for the next size.
	err := guarded(t.ctx, fmt.Sprintf("%s files", thousands(files)), t.log, func(t *host) {
		newGrowth(l, t, files).measure(g)
	})
	if err != nil {
		t.Fatal(err)
	}
	l.grown[files] = g
	return g
}

// growth is the measuring of one size.
type growth struct {
	lab           *lab
	t             *host
	site          *site
	files         int
	master        string
	ours, theirs  string
	session       *session // the one that is live
	contentNumber int
}

func newGrowth(l *lab, t *host, files int) *growth {
	dir := l.memory(t, 512<<20)
	return &growth{lab: l, t: t, site: l.direct(t), files: files, master: manyFiles(t, dir, files, 1000, 0),
		ours: mkdir(t, dir, "georep"), theirs: mkdir(t, dir, "rsync")}
}

func (w *growth) measure(g *grown) {
	g.first = w.firstSyncs()
	if !g.first[0].ok() || !g.first[1].ok() {
		return // there is nothing to change and to restart; what it is is in the state
	}
	peaks, err := w.session.peaks()
	w.t.must(err)
	g.peaks = peaks
	g.one, g.ten = w.changes(1), w.changes(10)
	g.restart, g.scan = w.restarts()
	w.t.must(equal(w.master, w.ours))
	verified, err := w.session.verified(w.t.ctx)
	w.t.must(err)
	maps.Copy(g.peaks, verified)
	w.t.must(equal(w.master, w.theirs))
}

// firstSyncs leaves georep's last session live, and both slaves whole.
func (w *growth) firstSyncs() []series {
	fresh := func(slave string) error {
		if err := os.RemoveAll(slave); err != nil {
			return err
		}
		return os.Mkdir(slave, 0o755)
	}
	return w.lab.contest(w.t,
		contender{
			name: "georep",
			prepare: func(int) error {
				if w.session != nil {
					if err := w.session.stop(w.t.ctx); err != nil {
						return err
					}
				}
				w.session = w.site.newSession(w.t, w.master, w.ours)
				return fresh(w.ours)
			},
			run: func(ctx context.Context, _ int) (result, error) {
				return w.site.measured(func() error { return w.session.start(ctx) })
			},
			verify: func(int) error { return equal(w.master, w.ours) },
		},
		contender{
			name:    "rsync",
			prepare: func(int) error { return fresh(w.theirs) },
			run: func(ctx context.Context, _ int) (result, error) {
				return w.site.measured(func() error { return w.site.rsync(ctx, w.master, w.theirs) })
			},
			verify: func(int) error { return equal(w.master, w.theirs) },
		})
}

// changes writes to n files, in as many directories as there are, and has both bring that over. rsync runs when georep is
// in step again, for the same change.
func (w *growth) changes(n int) []series {
	var paths []string
	content := ""
	dirs := (w.files + 999) / 1000
	for i := range n {
		dir := i * max(1, dirs/n) % dirs
		paths = append(paths, fmt.Sprintf("d%06d/f%06d", dir, i%min(w.files, 1000)))
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	there := func(ctx context.Context, slave string) error {
		for _, p := range paths {
			if err := visible(ctx, filepath.Join(slave, p), content); err != nil {
				return err
			}
		}
		return nil
	}
	return w.lab.contest(w.t,
		contender{
			name: "georep",
			run: func(ctx context.Context, _ int) (result, error) {
				w.contentNumber++
				content = fmt.Sprintf("content number %d", w.contentNumber)
				r, err := w.site.measured(func() error {
					for _, p := range paths {
						if err := os.WriteFile(filepath.Join(w.master, p), []byte(content), 0o644); err != nil {
							return err
						}
					}
					return there(ctx, w.ours)
				})
				if err == nil {
					err = w.session.inStep(ctx, time.Now())
				}
				return r, err
			},
		},
		contender{
			name: "rsync",
			run: func(ctx context.Context, _ int) (result, error) {
				return w.site.measured(func() error {
					if err := w.site.rsync(ctx, w.master, w.theirs); err != nil {
						return err
					}
					return there(ctx, w.theirs)
				})
			},
		})
}

// restarts stops and starts the session with nothing changed. The scan is the part of georep's time until the marker had
// looked for what changed while it did not run.
func (w *growth) restarts() (out []series, scans []float64) {
	out = w.lab.contest(w.t,
		contender{
			name:    "georep",
			prepare: func(int) error { return w.session.stop(w.t.ctx) },
			run: func(ctx context.Context, round int) (result, error) {
				begin, scanned := time.Now(), make(chan float64, 1)
				go func() {
					if w.session.scanned(ctx, begin) == nil {
						scanned <- time.Since(begin).Seconds()
					}
					close(scanned)
				}()
				r, err := w.site.measured(func() error { return w.session.start(ctx) })
				if err != nil {
					return r, err
				}
				if s := <-scanned; round >= 0 {
					scans = append(scans, s)
				}
				return r, nil
			},
		},
		contender{
			name: "rsync",
			run: func(ctx context.Context, _ int) (result, error) {
				return w.site.measured(func() error { return w.site.rsync(ctx, w.master, w.theirs) })
			},
		})
	return out, scans
}

// Sizes of trees.
const (
	smallTree  = 10_000
	middleTree = 100_000
	largeTree  = 1_000_000
)

// sizes are those of the growth rows at the scale asked for.
func (l *lab) sizes(of ...int) (out []int) {
	for _, n := range of {
		out = append(out, l.scaled(n, 10))
	}
	return slices.Compact(out)
}

// added is a line from series of grown; where a first sync failed there are none.
func added(work string, s []series, l line) line {
	l.work, l.unit = work, "s"
	if len(s) == 0 {
		l.ours = series{state: "no first sync"}
		return l
	}
	l.ours, l.peers = s[0], s[1:]
	return l
}

func tenRow(l *lab, t *host, rep *report) {
	for _, n := range l.sizes(smallTree, largeTree) {
		g := l.grow(t, n)
		rep.lines = append(rep.lines, added(thousands(n)+" files, 10 changed", g.ten,
			line{goal: valueGoal("≤ 0.2 s at any size", 0.2)}))
	}
}

func restartRow(l *lab, t *host, rep *report) {
	n := l.scaled(largeTree, 10)
	g := l.grow(t, n)
	after := 0.0
	if len(g.scan) > 0 {
		after = median(g.restart[0].values) - median(g.scan)
	}
	rep.lines = append(rep.lines, added("start, "+thousands(n)+" files, nothing changed", g.restart, line{
		goal: goal{"≤ 0.2 s after the catch-up scan", func(l *line) bool { return l.ours.ok() && after <= 0.2 }},
		note: fmt.Sprintf("from georep start until the status says that the slave has what was there then; %s s of it until "+
			"the marker's catch-up scan was over and it said so, %s s after that", number(median(g.scan)), number(after))}))
}

func memoryRow(l *lab, t *host, rep *report) {
	out := table{title: "Peak resident memory, MiB, of a first sync, and of a verification of all",
		note: "The goal is 96 MiB a process, whatever the size."}
	processes := []string{"worker", "agent", "marker", "monitor", "verify", "its agent"}
	out.rows = append(out.rows, append([]string{"files"}, processes...))
	for _, n := range l.sizes(middleTree, largeTree) {
		row := []string{thousands(n)}
		g := l.grow(t, n)
		for _, p := range processes {
			cell := "–"
			if v, ok := g.peaks[p]; ok {
				cell = number(v)
			}
			row = append(row, cell)
		}
		out.rows = append(out.rows, row)
	}
	rep.tables = append(rep.tables, out)
}

// growthRow is the table and the plot of how cost grows.
func growthRow(l *lab, t *host, rep *report) {
	out := table{title: "How cost grows with the number of (empty) files, seconds",
		rows: [][]string{{"files", "first sync: georep", "rsync", "nothing changed: georep start", "rsync",
			"one change: georep live", "rsync"}},
		note: "georep's times end when the slave has everything, those of first sync and start when the status says so."}
	works := []string{"first sync", "nothing changed", "one change"}
	var curves []curve
	for i, w := range works {
		curves = append(curves, curve{name: w + ", georep", hue: i}, curve{name: w + ", rsync", hue: i, dashed: true})
	}
	for _, n := range l.sizes(smallTree, middleTree, largeTree) {
		g := l.grow(t, n)
		row := []string{thousands(n)}
		for i, s := range [][]series{g.first, g.restart, g.one} {
			for k := range 2 {
				if k >= len(s) {
					row = append(row, "–")
					continue
				}
				cell := s[k].state
				if s[k].ok() {
					cell = number(s[k].mid())
					c := &curves[2*i+k]
					c.points = append(c.points, point{float64(n), s[k].mid()})
				}
				row = append(row, strings.TrimSpace(cell))
			}
		}
		out.rows = append(out.rows, row)
	}
	rep.tables, rep.curves = append(rep.tables, out), curves
}
