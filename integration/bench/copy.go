package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
)

// smallRow is the first sync of many small files.
func smallRow(which string, g goal) func(*lab, *host, *report) {
	return func(l *lab, t *host, rep *report) {
		const size = 4096
		files := l.scaled(100_000, 10)
		dir := l.memory(t, int64(files)*2*size)
		master := manyFiles(t, dir, files, 1000, size)
		s := l.over(t, which)
		out := l.contest(t,
			s.georepCopier(t, dir, master),
			s.copier("rsync", dir, master, equal, func(ctx context.Context, slave string) error {
				return s.rsync(ctx, master, slave)
			}),
			s.copier("tar over ssh", dir, master, equal, func(ctx context.Context, slave string) error {
				return s.tar(ctx, master, slave)
			}))
		rep.lines = append(rep.lines, line{work: fmt.Sprintf("first sync, %s files of 4 KiB, %s", thousands(files), which),
			ours: out[0], peers: out[1:], unit: "s", goal: g})
	}
}

// slaveName is where contenders copy to that take turns.
const slaveName = "slave"

// copier is a contender that fills an empty slave in dir, which is taken away again once it was judged.
func (s *site) copier(name, dir, master string, judge func(master, slave string) error,
	fill func(ctx context.Context, slave string) error) contender {
	slave := filepath.Join(dir, slaveName)
	return contender{
		name: name,
		prepare: func(int) error {
			if err := os.RemoveAll(slave); err != nil {
				return err
			}
			return os.Mkdir(slave, 0o755)
		},
		run: func(ctx context.Context, _ int) (result, error) {
			return s.measured(func() error { return fill(ctx, slave) })
		},
		verify: func(int) error {
			err := judge(master, slave)
			if err == nil {
				err = os.RemoveAll(slave)
			}
			return err
		},
	}
}

// georepCopier is georep sync with a session that is new each time; to register it is not timed.
func (s *site) georepCopier(t *host, dir, master string) contender {
	var session *session
	c := s.copier("georep", dir, master, equal, func(ctx context.Context, _ string) error { return session.sync(ctx) })
	empty := c.prepare
	c.prepare = func(round int) error {
		session = s.newSession(t, master, filepath.Join(dir, slaveName))
		return empty(round)
	}
	return c
}

// bigName is the file of the rows with one large file.
const bigName = "big"

// bigMaster is a directory with one file of random content, which nothing can compress.
func bigMaster(t *host, dir string, size int) string {
	master := mkdir(t, dir, "master")
	f, err := os.Create(filepath.Join(master, bigName))
	t.must(err)
	defer f.Close()
	buf := make([]byte, min(1<<20, size))
	for left := size; left > 0; left -= len(buf) {
		buf = buf[:min(len(buf), left)]
		_, err := rand.Read(buf)
		t.must(err)
		_, err = f.Write(buf)
		t.must(err)
	}
	return master
}

// bigRow is the first sync of one large file.
func bigRow(which string, g goal) func(*lab, *host, *report) {
	return func(l *lab, t *host, rep *report) {
		bytes := l.scaled(1<<30, 1<<20)
		dir := l.memory(t, int64(bytes)*2)
		master := bigMaster(t, dir, bytes)
		s := l.over(t, which)
		out := l.contest(t,
			s.georepCopier(t, dir, master),
			s.copier("rsync", dir, master, equal, func(ctx context.Context, slave string) error {
				return s.rsync(ctx, master, slave)
			}),
			s.copier("ssh alone", dir, master, equalContent, func(ctx context.Context, slave string) error {
				return s.cat(ctx, filepath.Join(master, bigName), filepath.Join(slave, bigName))
			}))
		rep.lines = append(rep.lines, line{work: fmt.Sprintf("one random file of %s, %s", size(bytes), which),
			ours: out[0], peers: out[1:], unit: "s", goal: g})
	}
}

// deltaRow changes a little inside a large file that both slaves have.
func deltaRow(l *lab, t *host, rep *report) {
	bytes := l.scaled(1<<30, 4<<20)
	changed := min(1<<20, bytes/4)
	dir := l.memory(t, int64(bytes)*5) // a new version of each slave's file beside the old one
	master := bigMaster(t, dir, bytes)
	ours, theirs := mkdir(t, dir, "georep"), mkdir(t, dir, "rsync")
	s := l.over(t, wan)
	session := s.newSession(t, master, ours)
	near := l.direct(t)
	t.must(l.within(t, func(ctx context.Context) error { return near.rsync(ctx, master, theirs) }))
	t.must(l.within(t, session.sync))
	contest := l.contest(t,
		contender{
			name:    "georep",
			prepare: func(round int) error { return overwrite(filepath.Join(master, bigName), round, changed, bytes) },
			run: func(ctx context.Context, _ int) (result, error) {
				return s.measured(func() error { return session.sync(ctx) })
			},
			verify: func(int) error { return equal(master, ours) },
		},
		contender{ // brings over what was changed for georep
			name: "rsync",
			run: func(ctx context.Context, _ int) (result, error) {
				return s.measured(func() error { return s.rsync(ctx, master, theirs) })
			},
			verify: func(int) error { return equal(master, theirs) },
		})
	l2 := line{work: fmt.Sprintf("%s changed inside %s, WAN", size(changed), size(bytes)), ours: contest[0],
		peers: contest[1:], unit: "s"}
	l2.goal = goal{"≤ rsync in time and bytes", func(l *line) bool {
		return l.ratio() <= 1 && median(l.ours.wire) <= median(l.peers[0].wire)
	}}
	rep.lines = append(rep.lines, l2)
}

// overwrite puts random bytes somewhere inside the file, somewhere else in each round.
func overwrite(path string, round, n, size int) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, n)
	if _, err := rand.Read(buf); err != nil {
		return err
	}
	slots := size/n - 1
	// An odd offset: no block of any algorithm begins there.
	_, err = f.WriteAt(buf, int64((round+1000)*7%slots*n+n/3|1))
	return err
}
