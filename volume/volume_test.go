package volume

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mkdir(t *testing.T, elem ...string) string {
	t.Helper()
	dir := filepath.Join(elem...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func create(t *testing.T, s *Store, name, path string) Volume {
	t.Helper()
	v, err := s.CreateVolume(NewVolume{Name: name, Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVolumeRoundTrip(t *testing.T) {
	s, base := openStore(t), t.TempDir()
	for i, part := range []string{"plain", "new\nline", "inva\xfflid", "\"quoted\"", "sp ace\x1b[0m"} {
		name := string(rune('a' + i))
		made := create(t, s, name, mkdir(t, base, part))
		changed, err := s.UpdateVolume(name, func(v *Volume) error {
			v.RootGFID, v.FSID, v.Namespace, v.VolumeMark = "g", "f", "trusted", 1<<64-1
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Volume(name)
		if err != nil || !reflect.DeepEqual(got, changed) || got.Path != filepath.Join(base, part) || got.UUID != made.UUID {
			t.Errorf("%q: got %+v, %v; saved %+v", part, got, err, changed)
		}
		if byPath, err := s.VolumeByPath(got.Path + "/."); err != nil || !reflect.DeepEqual(byPath, got) {
			t.Errorf("VolumeByPath(%q): %+v, %v", got.Path, byPath, err)
		}
	}
	list, err := s.Volumes()
	if err != nil || len(list) != 5 || list[0].Name != "a" || list[4].Name != "e" {
		t.Errorf("Volumes: %+v, %v", list, err)
	}
	fi, err := os.Stat(s.volumeFile("a"))
	if err != nil || fi.Mode() != fileMode {
		t.Errorf("mode of the file: %v, %v", fi, err)
	}
	if fi, err = os.Stat(s.Dir()); err != nil || fi.Mode().Perm() != dirMode {
		t.Errorf("mode of the state directory: %v, %v", fi, err)
	}
}

func TestCreateVolumeRefuses(t *testing.T) {
	s, base := openStore(t), t.TempDir()
	data := mkdir(t, base, "srv", "data")
	inner, link, file := mkdir(t, data, "inner"), filepath.Join(base, "link"), filepath.Join(base, "file")
	if err := errors.Join(os.Symlink(data, link), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	create(t, s, "data", data)
	mkdir(t, base, "srv", "data2")
	create(t, s, "beside", filepath.Join(base, "srv", "data2"))
	for _, c := range []struct {
		name, path string
		want       error
		says       string
	}{
		{"data", mkdir(t, base, "x"), ErrVolumeExists, "another name"},
		{"other", data, ErrVolumeExists, "volume data"},
		{"other", link, ErrVolumeExists, "volume data"},
		{"other", inner, ErrOverlap, "inside volume data"},
		{"other", filepath.Join(link, "inner"), ErrOverlap, "inside volume data"},
		{"other", filepath.Dir(data), ErrOverlap, "contains volume"},
		{"other", filepath.Dir(s.Dir()), ErrOverlap, "state directory"},
		{"other", "relative", ErrSyntax, "absolute"},
		{"other", file, ErrSyntax, "not a directory"},
		{"other", filepath.Join(base, "missing"), os.ErrNotExist, "missing"},
		{"other", data + "\x00", ErrSyntax, "NUL"},
		{".hidden", data, ErrSyntax, "volume name"}, {"-x", data, ErrSyntax, ""}, {"", data, ErrSyntax, ""},
		{"a/b", data, ErrSyntax, ""}, {strings.Repeat("x", 65), data, ErrSyntax, ""}, {"a\n", data, ErrSyntax, ""},
	} {
		_, err := s.CreateVolume(NewVolume{Name: c.name, Path: c.path})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("create %q %q: %v, want %v with %q", c.name, c.path, err, c.want, c.says)
		}
	}
}

func TestDeleteVolume(t *testing.T) {
	s, base := openStore(t), t.TempDir()
	create(t, s, "data", mkdir(t, base, "data"))
	sess, err := s.CreateSession(Session{Master: "data", Slave: Slave{Host: "backup", Volume: "copy"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteVolume("data"); !errors.Is(err, ErrVolumeBusy) || !strings.Contains(err.Error(), "backup::copy") {
		t.Errorf("delete with a session: %v", err)
	}
	if err := s.DeleteSession("data", sess.Slave); err != nil {
		t.Fatal(err)
	}
	run, err := s.MakeRuntime("data")
	if err != nil {
		t.Fatal(err)
	}
	user, err := TryLock(run.UsersLock, Shared)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteVolume("data"); !errors.Is(err, ErrVolumeBusy) {
		t.Errorf("delete with a user: %v", err)
	}
	user.Close()
	if err := s.DeleteVolume("data"); err != nil {
		t.Error(err)
	}
	if err := s.DeleteVolume("data"); !errors.Is(err, ErrNoVolume) {
		t.Errorf("delete again: %v", err)
	}
	if _, err := os.Stat(run.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the runtime directory: %v", err)
	}
}

func TestNameForPath(t *testing.T) {
	s, base := openStore(t), t.TempDir()
	for path, want := range map[string]string{
		"/srv/data": "data", "/": "volume", "/srv/.hidden/": "hidden", "/srv/a b\xff": "a-b",
		"/" + strings.Repeat("y", 100): strings.Repeat("y", 64),
	} {
		if got, err := s.NameForPath(path); err != nil || got != want || CheckName(got) != nil {
			t.Errorf("NameForPath(%q) = %q, %v; want %q", path, got, err, want)
		}
	}
	create(t, s, "data", mkdir(t, base, "1"))
	create(t, s, "data-2", mkdir(t, base, "2"))
	if got, err := s.NameForPath("/srv/data"); err != nil || got != "data-3" {
		t.Errorf("the third data: %q, %v", got, err)
	}
}

func TestMaster(t *testing.T) {
	s, base := openStore(t), t.TempDir()
	v := create(t, s, "data", mkdir(t, base, "data"))
	for _, arg := range []string{"data", v.Path, v.Path + "/"} {
		m, err := ParseMaster(arg)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Master(m); err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("master %q: %+v, %v", arg, got, err)
		}
	}
	for _, arg := range []string{"", "./data", "a:b", "a\x1b", "/a\x00"} {
		if _, err := ParseMaster(arg); !errors.Is(err, ErrSyntax) {
			t.Errorf("master %q: %v", arg, err)
		}
	}
}

func TestConcurrentCreate(t *testing.T) {
	s, dir := openStore(t), t.TempDir()
	var made, refused sync.Map
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			_, err := s.CreateVolume(NewVolume{Name: string(rune('a' + i)), Path: dir})
			if err == nil {
				made.Store(i, true)
			} else if errors.Is(err, ErrVolumeExists) {
				refused.Store(i, true)
			} else {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if count(&made) != 1 || count(&refused) != 7 {
		t.Errorf("%d made, %d refused", count(&made), count(&refused))
	}
}

func count(m *sync.Map) (n int) {
	m.Range(func(any, any) bool { n++; return true })
	return n
}

func TestDamagedRegistry(t *testing.T) {
	s, base := openStore(t), t.TempDir()
	good := create(t, s, "good", mkdir(t, base, "good"))
	for name, text := range map[string]string{
		"toml": "name = ", "path": "name='path'\nuuid='" + good.UUID + "'\npath='relative'\n",
		"uuid": "name='uuid'\nuuid='1'\npath='/'\n", "name": "name='../x'\nuuid='" + good.UUID + "'\npath='/'\n",
		"mark": "name='mark'\nuuid='" + good.UUID + "'\npath='/'\nvolume_mark='z'\n",
	} {
		if err := os.WriteFile(s.volumeFile(name), []byte(text), fileMode); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Volume(name); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	list, err := s.Volumes()
	if err == nil || len(list) != 1 || !reflect.DeepEqual(list[0], good) {
		t.Errorf("Volumes: %+v, %v", list, err)
	}
}

func TestOpenStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", file, file + "/below"} {
		if _, err := OpenStore(dir); err == nil {
			t.Errorf("OpenStore(%q): no error", dir)
		}
	}
	s := openStore(t)
	if list, err := s.Volumes(); err != nil || list != nil {
		t.Errorf("Volumes of nothing: %v, %v", list, err)
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading made the state directory: %v", err)
	}
	if msg := s.stateError("open", os.ErrPermission).Error(); !strings.Contains(msg, "--state-dir") ||
		!strings.Contains(msg, "GEOREP_STATE_DIR") {
		t.Errorf("permission: %q", msg)
	}
}

// TestNotPermitted looks at the state directory of another user, as any user but root would.
func TestNotPermitted(t *testing.T) {
	s := openStore(t)
	create(t, s, "data", t.TempDir())
	if err := os.Chmod(s.Dir(), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(s.Dir(), dirMode) })
	fresh, err := OpenStore(filepath.Join(s.Dir(), "below"))
	if err != nil && os.Getuid() == 0 {
		t.Fatal(err)
	}
	errs := map[string]error{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, and its identity with it
		unix.Setfsuid(65534)
		_, errs["list"] = s.Volumes()
		_, errs["sessions"] = s.Sessions()
		_, errs["read"] = s.Volume("data")
		_, errs["create"] = s.CreateSession(Session{Master: "data", Slave: Slave{Host: "h", Volume: "v"}})
		_, errs["open"] = OpenStore(filepath.Join(s.Dir(), "below"))
		if fresh != nil {
			_, errs["make"] = fresh.CreateSession(Session{Master: "data", Slave: Slave{Host: "h", Volume: "v"}})
		}
	}()
	<-done
	for what, err := range errs {
		if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "--state-dir") ||
			!strings.Contains(err.Error(), "GEOREP_STATE_DIR") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
