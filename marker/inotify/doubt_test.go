package inotify

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLookThatLies: a file system that fails for a moment to find a directory which it has, when that is announced by an event,
// by a listing or by a walk. No event tells of the directory again, so the source has to look again by itself.
func TestLookThatLies(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENOENT, unix.ESTALE, unix.EXDEV, unix.ENOTDIR} {
		for lies := 1; lies <= doubtLooks; lies++ {
			for name, announce := range map[string]func(t *testing.T, s *Source, dir string){
				"made":     func(t *testing.T, _ *Source, dir string) { must(t, os.Mkdir(dir+"/d", 0o755)) },
				"moved":    func(t *testing.T, _ *Source, dir string) { must(t, os.Rename(dir+"/from/away", dir+"/d")) },
				"moved in": func(t *testing.T, _ *Source, dir string) { must(t, os.Rename(dir+"-outside", dir+"/d")) },
				"exchanged": func(t *testing.T, _ *Source, dir string) {
					exchange(t, dir+"/f", dir+"/from/away")
					exchange(t, dir+"/f", dir+"/d")
				},
				"listed": func(t *testing.T, _ *Source, dir string) {
					must(t, errors.Join(os.MkdirAll(dir+"-new/d/e", 0o755), os.Rename(dir+"-new", dir+"/new")))
				},
				"walked": func(t *testing.T, s *Source, dir string) {
					must(t, os.MkdirAll(dir+"/d/e", 0o755))
					s.mu.Lock()
					s.overflow()
					s.mu.Unlock()
				},
			} {
				t.Run(errno.Error()+" "+name, func(t *testing.T) {
					dir := filepath.Join(t.TempDir(), "root")
					must(t, errors.Join(os.MkdirAll(dir+"/from/away/below", 0o755), os.MkdirAll(dir+"-outside/below", 0o755), os.WriteFile(dir+"/f", nil, 0o600)))
					if name == "exchanged" {
						must(t, os.WriteFile(dir+"/d", nil, 0o600))
					}
					s := newSource(t, dir)
					left := lies
					s.tree.dir.Hook(func(op, name string) error {
						if op == "open" && filepath.Base(name) == "d" && left > 0 {
							left--
							return errno
						}
						return nil
					})
					announce(t, s, dir)
					settle(t, s)
					if left == lies {
						t.Error("nothing was looked at")
					}
					checkTree(t, s, dir)
				})
			}
		}
	}
}

// TestListThatLies: a directory that is there, and for a moment cannot be opened to be listed, or lists nothing.
func TestListThatLies(t *testing.T) {
	for _, op := range []string{"open", "list"} {
		dir := filepath.Join(t.TempDir(), "root")
		must(t, errors.Join(os.MkdirAll(dir+"-new/d/e", 0o755), os.Mkdir(dir, 0o755)))
		s := newSource(t, dir)
		left := 2
		s.tree.dir.Hook(func(got, name string) error {
			if got == op && (name == "" || name == ".") && left > 0 {
				left--
				return unix.ENOENT
			}
			return nil
		})
		must(t, os.Rename(dir+"-new", dir+"/new"))
		settle(t, s)
		if left > 0 {
			t.Errorf("%s: it was not asked", op)
		}
		checkTree(t, s, dir)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exchange(t testing.TB, a, b string) {
	t.Helper()
	must(t, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
}

// TestDirectoryMissesAWalk: a directory that is out of the tree while all is walked, and comes back before it is given up. A
// walk drops what waited to be done before it, so what such a directory still has to be asked is to be asked when it is back.
func TestDirectoryMissesAWalk(t *testing.T) {
	// step does a little: a directory that waits to be given up would have drain go on until it is.
	step := func(t *testing.T, s *Source) {
		for range 8 {
			if _, err := s.Read(func(Event) {}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Adopt(func(Event) {}); err != nil {
				t.Fatal(err)
			}
		}
	}
	walk := func(t *testing.T, s *Source) {
		s.mu.Lock()
		s.walkAll()
		s.mu.Unlock()
		for walking := true; walking; {
			step(t, s)
			s.mu.Lock()
			walking = s.adopt.walking
			s.mu.Unlock()
		}
	}
	for name, before := range map[string]func(t *testing.T, s *Source, in, out string){
		"not listed yet": func(t *testing.T, s *Source, in, out string) {
			must(t, os.Rename(out, in))
			if _, err := s.Read(func(Event) {}); err != nil { // it is watched from now on
				t.Fatal(err)
			}
			must(t, os.Rename(in, out))
		},
		"a new one in it": func(t *testing.T, s *Source, in, out string) {
			must(t, os.Rename(out, in))
			step(t, s)
			must(t, os.Rename(in, out))
			step(t, s)
			must(t, os.MkdirAll(out+"/new/below", 0o755))
		},
		"one moved below it": func(t *testing.T, s *Source, in, out string) {
			must(t, os.Rename(out, in))
			step(t, s)
			must(t, errors.Join(os.MkdirAll(out+"-more/below", 0o755), os.Rename(in, out)))
			step(t, s)
			must(t, os.Rename(out+"-more", out+"/d/moved"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "root")
			in, out := dir+"/x", dir+"-outside"
			must(t, errors.Join(os.Mkdir(dir, 0o755), os.MkdirAll(out+"/d/e", 0o755)))
			s := newSource(t, dir)
			before(t, s, in, out)
			s.mu.Lock()
			kept := len(s.tree.byID)
			s.mu.Unlock()
			step(t, s)
			walk(t, s)
			must(t, os.Rename(out, in))
			s.mu.Lock()
			if len(s.tree.byID) < kept {
				t.Error("it was given up before it came back, which shows nothing")
			}
			s.mu.Unlock()
			settle(t, s)
			checkTree(t, s, dir)
		})
	}
}
