// Command bench measures georep beside rsync, lsyncd and tar over the same real sshd on loopback, on tmpfs, in one run
// on the same trees, and prints the table of docs/measurements.md as Markdown. It needs root, and what setup.sh
// installs.
//
//	go run ./integration/bench                      everything; takes an hour or two
//	go run ./integration/bench -list                the rows
//	go run ./integration/bench -scale 0.01 -runs 1  a try of everything in minutes
//	go run ./integration/bench -rows 'big.*|rename' some rows
//	go run ./integration/bench -ratios docs/bench-quick.tsv ...   also shows the ratios of an earlier run; -record replaces them
//	go run ./integration/bench -out docs            also writes bench.md, bench.svg and growth.svg there
//
// What a row does: the contenders run in turn (A, B, A, B, ...), after a round that does not count; each time counts only
// if the trees are equal afterwards; the median counts. What matters is the ratio: times differ from machine to machine.
// A contender that takes longer than -timeout is ended and shown as a timeout.
//
// A new row is a function in rows.go's list that returns lines; contest in measure.go runs its contenders.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

// config is what the command line says.
type config struct {
	scale   float64 // of the numbers of files and bytes
	runs    int     // that count
	warmup  int     // that do not
	timeout time.Duration
	rtt     time.Duration // of the WAN
	rows    *regexp.Regexp
	out     string // directory for the files; "" for none
	ratios  string // file of recorded ratios to compare with; "" for none
	record  bool   // the ratios of this run there
	list    bool
}

func parseConfig(args []string, errs io.Writer) (config, error) {
	c := config{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(errs)
	f.Float64Var(&c.scale, "scale", 1, "multiplies the numbers of files and bytes")
	f.IntVar(&c.runs, "runs", 3, "rounds that count")
	f.IntVar(&c.warmup, "warmup", 1, "rounds before that do not count")
	f.DurationVar(&c.timeout, "timeout", 10*time.Minute, "the most that one run of one contender may take")
	f.DurationVar(&c.rtt, "rtt", 2*wanDelay, "the round trip of the WAN; the goals are for the default")
	rows := f.String("rows", ".*", "a regular expression: only the rows whose names it matches as a whole")
	f.StringVar(&c.out, "out", "", "a directory for bench.md, bench.svg and growth.svg")
	f.StringVar(&c.ratios, "ratios", "", "a file of recorded ratios, to be shown beside those of this run")
	f.BoolVar(&c.record, "record", false, "write the ratios of this run into the file of -ratios")
	f.BoolVar(&c.list, "list", false, "name the rows and do nothing")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	var err error
	if c.rows, err = regexp.Compile("^(?:" + *rows + ")$"); err != nil {
		return c, fmt.Errorf("-rows: %w", err)
	}
	if c.record && c.ratios == "" {
		return c, fmt.Errorf("wrong usage: -record needs the file of -ratios")
	}
	if f.NArg() > 0 || !(c.scale > 0) || c.runs < 1 || c.warmup < 0 || c.timeout <= 0 || c.rtt < 0 {
		return c, fmt.Errorf("wrong usage: no arguments, and -scale, -runs and -timeout above 0: see -help")
	}
	return c, nil
}

// run is the whole program. A row that fails does not keep the others from running, but is an error in the end.
func run(ctx context.Context, args []string, out, errs io.Writer) error {
	c, err := parseConfig(args, errs)
	if err != nil {
		return err
	}
	var chosen []row
	for _, r := range rows() {
		if c.rows.MatchString(r.name) {
			chosen = append(chosen, r)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("-rows %v matches no row: see -list", c.rows)
	}
	if c.list {
		for _, r := range chosen {
			fmt.Fprintf(out, "%-10s %s\n", r.name, r.about)
		}
		return nil
	}
	if c.out != "" { // not after hours
		if err := os.MkdirAll(c.out, 0o755); err != nil {
			return fmt.Errorf("make the directory for the report: %w", err)
		}
	}
	rep := newReport(c)
	if c.ratios != "" {
		if rep.recorded, err = readRecorded(c.ratios); err != nil {
			return err
		}
	}
	l, err := newLab(ctx, c, errs)
	if err != nil {
		return err
	}
	defer l.close()
	for _, r := range chosen {
		begun := time.Now()
		err := guarded(ctx, r.name, errs, func(t *host) { r.run(l, t, rep) })
		fmt.Fprintf(errs, "%s: took %.1f s\n", r.name, time.Since(begun).Seconds())
		if err != nil {
			fmt.Fprintf(errs, "%s: %v\n", r.name, err)
			rep.failed = append(rep.failed, fmt.Sprintf("%s: %v", r.name, err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := rep.publish(c.out, out); err != nil {
		return err
	}
	if c.record {
		if err := rep.recorded.write(c.ratios, rep); err != nil {
			return err
		}
	}
	if len(rep.failed) > 0 {
		return fmt.Errorf("%d rows failed: %s", len(rep.failed), strings.Join(rep.failed, "; "))
	}
	return nil
}

// publish prints the report and writes its files.
func (r *report) publish(dir string, out io.Writer) error {
	text := r.markdown()
	if _, err := io.WriteString(out, text); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	if dir == "" {
		return nil
	}
	files := map[string]string{"bench.md": text}
	if len(r.lines) > 0 {
		files["bench.svg"] = barsSVG(r.lines)
	}
	if len(r.curves) > 0 {
		files["growth.svg"] = curvesSVG("How cost grows with the number of files", "files", "seconds", r.curves)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return nil
}
