package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// syscallsRow counts the system calls of both ends of a first sync, each with all of its threads and children: the
// master's end includes the ssh client, which georep has in itself. It is run once, since counts hardly vary.
func syscallsRow(l *lab, t *host, rep *report) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Fatal("strace is not installed: run integration/bench/setup.sh")
	}
	const size = 4096
	files := l.scaled(10_000, 10)
	dir := l.memory(t, int64(files)*3*size)
	master := manyFiles(t, dir, files, 1000, size)
	ours, theirs := mkdir(t, dir, "georep"), mkdir(t, dir, "rsync")
	logs := t.TempDir()
	traced := func(name string) ([]string, string) {
		file := filepath.Join(logs, name)
		return []string{"strace", "-f", "-c", "-o", file}, file
	}
	s := l.direct(t)
	ctx, cancel := context.WithTimeoutCause(t.ctx, l.cfg.timeout, errTimeout)
	defer cancel()
	out := table{title: fmt.Sprintf("System calls a file, first sync of %s files of 4 KiB", thousands(files)),
		rows: [][]string{{"who", "calls", "the most frequent"}}}
	add := func(who, file string) {
		counts, err := counted(ctx, file)
		t.must(err)
		out.rows = append(out.rows, append([]string{who}, perFile(counts, files)...))
	}

	session := s.newSession(t, master, ours)
	near, nearLog := traced("georep-master")
	far, farLog := traced("georep-slave")
	session.wrap, session.remote = near, filepath.Join(logs, "agent")
	// Each stream of the session starts an agent of its own, and each agent has its own log.
	script := "#!/bin/sh\nexec " + strings.Join(far, " ") + ".$$ " + l.binary + " \"$@\"\n"
	t.must(os.WriteFile(session.remote, []byte(script), 0o755))
	t.must(session.sync(ctx))
	t.must(equal(master, ours))
	add("georep, worker", nearLog)
	add("georep, agent", farLog+".*")

	near, nearLog = traced("rsync-master")
	far, farLog = traced("rsync-slave")
	args := s.rsyncArgs(master, theirs, "--rsync-path="+strings.Join(far, " ")+" rsync")
	t.must(finish(command(ctx, append(near, args...))))
	t.must(equal(master, theirs))
	add("rsync, sender and ssh", nearLog)
	add("rsync, receiver", farLog)
	rep.tables = append(rep.tables, out)
}

// counted adds up what strace -c has written to the files that pattern matches, once it has: the far end may end a little
// later than the near one.
func counted(ctx context.Context, pattern string) (map[string]int, error) {
	paths, err := filepath.Glob(pattern)
	if err == nil && len(paths) == 0 {
		err = os.ErrNotExist
	}
	sum := map[string]int{}
	for _, path := range paths {
		if err == nil {
			err = wait(ctx, 20*time.Millisecond, func() (bool, error) { return addCounts(sum, path) })
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", pattern, err)
	}
	return sum, nil
}

// addCounts adds the calls in one file to sum, and tells whether that is complete.
func addCounts(sum map[string]int, path string) (complete bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	counts, complete, err := parseCounts(f)
	if err != nil || !complete {
		return false, err
	}
	for name, n := range counts {
		sum[name] += n
	}
	return true, nil
}

// parseCounts reads strace's summary: calls by name. It is complete when it has its total.
//
//	% time     seconds  usecs/call     calls    errors syscall
//	------ ----------- ----------- --------- --------- ----------------
//	 31.21    0.000211           4        51         3 openat
func parseCounts(r io.Reader) (counts map[string]int, complete bool, err error) {
	counts = map[string]int{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 5 {
			continue
		}
		calls, err := strconv.Atoi(f[3])
		if err != nil {
			continue // the heading
		}
		name := f[len(f)-1]
		if name == "total" {
			return counts, true, nil
		}
		counts[name] += calls
	}
	return counts, false, lines.Err()
}

// perFile gives all calls a file, and the most frequent of them by name.
func perFile(counts map[string]int, files int) []string {
	total := 0
	for _, n := range counts {
		total += n
	}
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	})
	const shown = 10
	var most []string
	for _, name := range names[:min(shown, len(names))] {
		most = append(most, fmt.Sprintf("%s %.1f", name, float64(counts[name])/float64(files)))
	}
	return []string{fmt.Sprintf("%.1f", float64(total)/float64(files)), strings.Join(most, ", ")}
}
