package crawler_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

// change does one thing on the master, at random. What cannot be done, since there is no such place, or one lies in the other,
// is not done.
func (s *schedule) change() { _ = s.did(s.choose()) }

// did does and books something. The marker comes to it later.
func (s *schedule) did(what string, paths []string, do func() error) error {
	spots := s.w.spots(paths)
	if err := do(); err != nil {
		return err
	}
	s.book.note(s.w, what)
	for _, at := range spots {
		s.queue = append(s.queue, unmarked{len(s.book.states) - 1, at})
	}
	s.say("state %d: %s", len(s.book.states)-1, what)
	s.lead(spots)
	if slices.ContainsFunc(paths, func(p string) bool { return several(s.w.at(p)) }) {
		s.mark(len(s.queue)) // no mark would lead to its other names once this one is gone
	}
	return nil
}

// lead does what the marker does for strays (marker/stray.go): where a name goes that an inode got beside others, since there is a
// marker, it has the directory of another one marked. Else no mark would lead to what was changed through the one that is gone.
func (s *schedule) lead(changed []spot) {
	last := len(s.book.states) - 1
	now, before := s.book.states[last], s.book.states[last-1]
	gone := slices.DeleteFunc(slices.Collect(maps.Keys(s.further)), func(at spot) bool {
		return now[at.dir][at.name].gfid == s.further[at]
	})
	slices.SortFunc(gone, func(a, b spot) int { return strings.Compare(a.name+a.dir.String(), b.name+b.dir.String()) })
	for _, at := range gone {
		g := s.further[at]
		delete(s.further, at)
		if other := now.nameOf(g); other.name != "" {
			s.say("leads to %q", other.name)
			s.queue = append(s.queue, unmarked{last, other})
		}
	}
	for _, at := range changed {
		one := now[at.dir][at.name]
		if !one.gfid.IsZero() && one.kind != slave.Dir && one != before[at.dir][at.name] && now.names(one.gfid) > 1 {
			s.further[at] = one.gfid
		}
	}
}

// choose gives one thing to do, and the names that it changes. Directories move most of all.
func (s *schedule) choose() (did string, paths []string, do func() error) {
	dir, other, file := s.pick(true), s.pick(true), s.pick(false)
	if dir == "" || other == "" || file == "" {
		return "begin anew", []string{"n0"}, func() error {
			return errors.Join(os.MkdirAll(s.w.at("n0/n1"), 0o755), s.write("n0/n1/fn"))
		}
	}
	fresh := beneath.Join(s.pick(true), fmt.Sprint("n", s.rnd.IntN(12)))
	if s.rnd.IntN(8) < s.focus {
		return s.ofYoung(s.young())
	}
	if s.giveWay && s.rnd.IntN(6) == 0 {
		return s.manyNames(file, dir, other)
	}
	at, rename := s.w.at, s.rename
	switch s.rnd.IntN(20) {
	case 0, 1, 2:
		return rename("rename", dir, fresh, 0)
	case 3:
		return rename("rename (NOREPLACE)", dir, fresh, unix.RENAME_NOREPLACE)
	case 4, 5:
		return rename("exchange", dir, other, unix.RENAME_EXCHANGE)
	case 6:
		return rename("exchange", dir, file, unix.RENAME_EXCHANGE)
	case 7:
		return rename("exchange", file, s.pick(false), unix.RENAME_EXCHANGE)
	case 8:
		return rename("rename", file, s.pick(false), 0)
	case 9:
		return rename("rename (NOREPLACE)", file, fresh, unix.RENAME_NOREPLACE)
	case 10:
		return rename("rename (WHITEOUT)", file, fresh, unix.RENAME_WHITEOUT)
	case 11, 12:
		if s.rnd.IntN(2) == 0 {
			file = fresh
		}
		return "write " + file, []string{file}, func() error { return s.write(file) }
	case 13:
		hot := beneath.Join(dir, "hot")
		return "write " + hot, []string{hot}, func() error { return s.write(hot) }
	case 14:
		return "mknod " + fresh, []string{fresh}, func() error {
			return unix.Mknod(at(fresh), unix.S_IFIFO|0o644, 0)
		}
	case 15:
		return "mkdir " + fresh, []string{fresh}, func() error { return os.Mkdir(at(fresh), 0o755) }
	case 16:
		return fmt.Sprintf("link %s -> %s", file, fresh), []string{fresh}, func() error { return os.Link(at(file), at(fresh)) }
	case 17:
		return "remove " + file, []string{file}, func() error { return os.Remove(at(file)) }
	case 18:
		return "chmod " + dir, []string{dir}, func() error { return os.Chmod(at(dir), os.FileMode(0o700+s.rnd.IntN(64))) }
	}
	return "remove all of " + dir, []string{dir}, func() error {
		if s.rnd.IntN(3) > 0 {
			return unix.EINVAL
		}
		return os.RemoveAll(at(dir))
	}
}

// manyNames gives an inode some names at once, in two directories, and may write files beside them at the same time.
func (s *schedule) manyNames(file string, dirs ...string) (did string, paths []string, do func() error) {
	for range 2 + s.rnd.IntN(5) {
		paths = append(paths, beneath.Join(dirs[s.rnd.IntN(len(dirs))], fmt.Sprint("m", s.rnd.IntN(30))))
	}
	names := paths
	var files []string
	for range s.rnd.IntN(5) {
		dir := dirs[s.rnd.IntN(len(dirs))]
		files = append(files, beneath.Join(dir, []string{"hot", "f", "g", "bad"}[s.rnd.IntN(4)]))
	}
	paths = append(slices.Clip(names), files...)
	return fmt.Sprintf("names of %s: %q, and written: %q", file, names, files), paths, func() error {
		for _, path := range names {
			if err := os.Link(s.w.at(file), s.w.at(path)); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
		for _, path := range files {
			_ = s.write(path) // where it is no file, it stays what it is
		}
		return nil
	}
}

// young gives a directory that came with files that keep changing, and some of which fail; "" where there is none.
func (s *schedule) young() string {
	all := s.list(true)
	all = slices.DeleteFunc(all, func(dir string) bool {
		_, err := os.Lstat(s.w.at(dir, "hot"))
		return err != nil
	})
	if len(all) == 0 {
		return ""
	}
	return all[s.rnd.IntN(len(all))]
}

// ofYoung gives something to do with a young directory: what is known of it while it moves is what was believed of another
// copy of it.
func (s *schedule) ofYoung(dir string) (did string, paths []string, do func() error) {
	at, fresh := s.w.at, beneath.Join(s.pick(true), fmt.Sprint("n", s.rnd.IntN(12)))
	if dir == "" {
		return "make and fill " + fresh, []string{fresh}, func() error {
			if err := os.Mkdir(at(fresh), 0o755); err != nil {
				return err
			}
			return errors.Join(s.write(fresh+"/hot"), s.write(fresh+"/bad"), s.write(fresh+"/f"))
		}
	}
	in := beneath.Join(dir, []string{"hot", "hot", "bad", "f", "g", "h"}[s.rnd.IntN(6)])
	switch s.rnd.IntN(5) {
	case 0, 1:
		return s.rename("rename", dir, fresh, 0)
	case 2:
		return s.rename("exchange", dir, s.pick(true), unix.RENAME_EXCHANGE)
	case 3:
		return "remove " + in, []string{in}, func() error { return os.Remove(at(in)) }
	}
	return "write " + in, []string{in}, func() error { return s.write(in) }
}

func (s *schedule) rename(what, from, to string, flags uint) (did string, paths []string, do func() error) {
	return fmt.Sprintf("%s %s -> %s", what, from, to), []string{from, to}, func() error {
		if from == to {
			return unix.EINVAL
		}
		return unix.Renameat2(unix.AT_FDCWD, s.w.at(from), unix.AT_FDCWD, s.w.at(to), flags)
	}
}

// write gives a file that is there, or a new one, another content, in its place.
func (s *schedule) write(path string) error {
	st, err := os.Lstat(s.w.at(path))
	if err == nil && !st.Mode().IsRegular() {
		return unix.EINVAL
	}
	f, err := os.OpenFile(s.w.at(path), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	s.texts++
	if _, err := fmt.Fprintf(f, "text %d\n", s.texts); err != nil {
		return err
	}
	if filepath.Base(path) == "hot" {
		return f.Truncate(1<<20 + int64(s.rnd.IntN(2))) // large, so that it waits at its first change
	}
	return nil
}

func (s *schedule) put(path string) { s.t.Helper(); s.w.ok(s.write(path)) }
