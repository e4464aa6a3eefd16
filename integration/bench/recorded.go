package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
)

// worse is by how much a ratio may be above the recorded one before the report says so. Two runs of the same code differ by less, as a
// rule, since both contenders run in turn on the same machine.
const worse = 1.25

// recorded are the ratios of an earlier run, by the work of their lines.
type recorded map[string]float64

// readRecorded reads a file that write has written. One that is not there has nothing. The error names the line that is wrong.
func readRecorded(path string) (recorded, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return recorded{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the recorded ratios: %w", err)
	}
	defer f.Close()
	out := recorded{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text := lines.Text()
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		ratio, work, ok := strings.Cut(text, "\t")
		v, err := strconv.ParseFloat(ratio, 64)
		if !ok || err != nil || !(v >= 0) {
			return nil, fmt.Errorf("%s:%d: no ratio, a tab and what was done: %q", path, n, text)
		}
		out[work] = v
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the recorded ratios: %w", err)
	}
	return out, nil
}

// write records the ratios of a report. What the report has no line for, since its row was not run or failed, stays as it was.
func (r recorded) write(path string, rep *report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Ratios to the first peer, of make bench-quick: ratio, tab, what was done. Smaller is better.\n# %s\n", rep.about)
	seen := map[string]bool{}
	put := func(work string, ratio float64) {
		if !seen[work] && !math.IsNaN(ratio) {
			fmt.Fprintf(&b, "%.3f\t%s\n", ratio, work)
			seen[work] = true
		}
	}
	for i := range rep.lines {
		put(rep.lines[i].work, rep.lines[i].ratio())
	}
	for work, ratio := range r {
		if !seen[work] {
			put(work, ratio)
		}
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("record the ratios: %w", err)
	}
	return nil
}

// cells are what the table has of a line beside its own ratio: the recorded one, and the change.
func (r recorded) cells(l *line) []string {
	was, known := r[l.work]
	now := l.ratio()
	if !known || math.IsNaN(now) || was == 0 {
		return []string{"", ""}
	}
	return []string{fmt.Sprintf("%.2f", was), fmt.Sprintf("%+.0f %%", (now/was-1)*100)}
}

// warnings name the lines that are clearly worse than they were.
func (r recorded) warnings(rep *report) (out []string) {
	for i := range rep.lines {
		l := &rep.lines[i]
		if was, known := r[l.work]; known && (math.IsNaN(l.ratio()) || l.ratio() > was*worse) {
			out = append(out, fmt.Sprintf("%s: the ratio was %.2f and is %.2f", l.work, was, l.ratio()))
		}
	}
	return out
}
