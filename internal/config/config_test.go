package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"georep/volume"
)

// write makes files in a new directory, and returns that.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoad(t *testing.T) {
	dir := write(t, map[string]string{
		"georep.toml": `include = ["conf.d/*.toml"]
# a comment
[defaults]
settle = "2s"
ssh-port = 2222
max-delete = 10

[[volume]]
name = "data"
path = "/srv/data"
[volume.policy]
no-setuid = true
keep-deleted = "7d"

[[session]]
master = "data"
slave = "backup::copy"
hints = false
max-delete = "20%"
agentless = true
`,
		"conf.d/b.toml": "[[session]]\nmaster = '/srv/b'\nslave = 'ssh://h:99/x'\nstarted = false\nidentity = 'id'\nsync-jobs = 0x2\n",
		"conf.d/a.toml": "[[volume]]\nname='v'\npath='/v'\n[[session]]\nmaster = 'known'\nslave = 'h:/x'\nsettle='0s'\n",
		"conf.d/other":  "nonsense",
	})
	got, err := Load(filepath.Join(dir, "georep.toml"), map[string]string{"known": "/known"})
	if err != nil {
		t.Fatal(err)
	}
	at := func(file string, line int) Place { return Place{filepath.Join(dir, file), line} }
	slave := func(s string) volume.Slave {
		out, err := volume.ParseSlave(s)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	want := Desired{
		Volumes: []Volume{
			{at("georep.toml", 8), "data", "/srv/data", map[string]string{"no-setuid": "on", "keep-deleted": "168h0m0s"}},
			{at("conf.d/a.toml", 1), "v", "/v", nil},
		},
		Sessions: []Session{
			{at("georep.toml", 15), volume.Master{Name: "data"}, slave("backup::copy"), true,
				map[string]string{"quiet-period": "2s", "ssh-port": "2222", "max-delete": "20%", "hints": "off", "agentless": "true"}},
			{at("conf.d/a.toml", 4), volume.Master{Name: "known"}, slave("h:/x"), true,
				map[string]string{"quiet-period": "0s", "ssh-port": "2222", "max-delete": "10"}},
			{at("conf.d/b.toml", 1), volume.Master{Path: "/srv/b"}, slave("ssh://h:99/x"), false,
				map[string]string{"quiet-period": "2s", "max-delete": "10", "identity": filepath.Join(dir, "conf.d", "id"), "sync-jobs": "2"}},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestEveryKey: a file takes whatever georep config takes.
func TestEveryKey(t *testing.T) {
	text := "[[session]]\nmaster = '/srv'\nslave = 'h::v'\n"
	want := map[string]string{}
	for _, k := range volume.ConfigKeys() {
		text += fmt.Sprintf("%s = %q\n", k.Name, k.Default)
		want[k.Name] = k.Default
	}
	dir := write(t, map[string]string{"g.toml": text})
	got, err := Load(filepath.Join(dir, "g.toml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Sessions[0].Config, want) {
		t.Errorf("%v, want %v", got.Sessions[0].Config, want)
	}
}

func TestProblems(t *testing.T) {
	const good = "[[session]]\nmaster = '/srv'\nslave = 'h::v'\n"
	for name, c := range map[string]struct {
		text string
		line int
		word []string
	}{
		"no TOML":                  {"\n[[session]\n", 2, []string{"toml.io"}},
		"a key twice":              {good + "settle='1s'\nsettle='2s'\n", 5, []string{"settle"}},
		"a key by two names":       {good + "settle='1s'\nquiet-period='2s'\n", 5, []string{"quiet-period", "g.toml:4", "another name"}},
		"unknown key":              {good + "queit-period = '2s'\n", 4, []string{"queit-period", "did you mean quiet-period?"}},
		"unknown, nothing near":    {good + "colour-of-it-all = 'red'\n", 4, []string{"the keys are master, slave, started"}},
		"unknown in defaults":      {"[defaults]\nsync-job = 4\n", 2, []string{"did you mean sync-jobs?"}},
		"unknown in a volume":      {"[[volume]]\nname='a'\npath='/a'\npaht='/b'\n", 4, []string{"did you mean path?"}},
		"unknown policy":           {"[[volume]]\nname='a'\npath='/a'\n[volume.policy]\nno-setuids=true\n", 5, []string{"did you mean no-setuid?"}},
		"inline policy":            {"[[volume]]\nname='a'\npath='/a'\npolicy = { max-bytes = 'x' }\n", 4, []string{"max-bytes", "500M"}},
		"unknown table":            {"[[sesion]]\n", 1, []string{"did you mean [[session]]?"}},
		"session as one table":     {"[session]\nmaster='/srv'\n", 1, []string{"[[session]]"}},
		"session as a list":        {"session = ['a']\n", 1, []string{"[[session]]"}},
		"key before the tables":    {"settle = '1s'\n", 1, []string{"[defaults]"}},
		"bad value":                {good + "\nmax-delete = 101\n", 5, []string{"max-delete", "0 to 100"}},
		"bad value in defaults":    {"[defaults]\nbwlimit = 'fast'\n" + good, 2, []string{"bwlimit", "500K"}},
		"bad started":              {good + "started = 'yes'\n", 4, []string{"true or false"}},
		"a list":                   {good + "settle = ['1s']\n", 4, []string{"one value"}},
		"a table":                  {good + "settle = { a = 1 }\n", 4, []string{"quiet-period.a"}},
		"a port that is named":     {"[[session]]\nmaster='/s'\nslave='ssh://h:1/x'\nssh-port=2\n", 4, []string{"names its port itself"}},
		"no master":                {"[[session]]\nslave = 'h::v'\n", 1, []string{"no master", "/srv/data"}},
		"no slave":                 {"[[session]]\nmaster = '/srv'\n", 1, []string{"no slave"}},
		"bad slave":                {"[[session]]\nmaster = '/srv'\nslave = 'nowhere'\n", 3, []string{"nowhere"}},
		"bad master":               {"[[session]]\nmaster = 'a/b'\nslave = 'h::v'\n", 2, []string{"a/b"}},
		"a number as master":       {"[[session]]\nmaster = 5\nslave = 'h::v'\n", 2, []string{"quotes"}},
		"no such volume":           {"[[session]]\nmaster = 'dta'\nslave = 'h::v'\n", 2, []string{"no volume dta", "did you mean data?"}},
		"a session twice":          {good + good, 4, []string{"there already", "g.toml:1"}},
		"a session by two names":   {"[[session]]\nmaster='data'\nslave='h::v'\n[[session]]\nmaster='/srv/data'\nslave='h::v'\n", 4, []string{"g.toml:1"}},
		"a volume twice":           {"[[volume]]\nname='a'\npath='/a'\n[[volume]]\nname='a'\npath='/b'\n", 4, []string{"g.toml:1"}},
		"a relative path":          {"[[volume]]\nname='a'\npath='a'\n", 3, []string{"absolute"}},
		"a bad name":               {"[[volume]]\nname='.a'\npath='/a'\n", 2, []string{".a"}},
		"include matches nothing":  {"\ninclude = ['conf.d/*.toml']\n", 2, []string{"conf.d/*.toml", "matches nothing", "put a file there"}},
		"include of something":     {"include = 5\n", 1, []string{"list of file names"}},
		"include of numbers":       {"include = [5]\n", 1, []string{"in quotes"}},
		"include in the wrong one": {"include = ['x/*']\n", 1, []string{"first file only"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string]string{"g.toml": c.text, "x/more.toml": "include = ['y']\n"})
			_, err := Load(filepath.Join(dir, "g.toml"), map[string]string{"data": "/srv/data"})
			var got Problems
			if !errors.As(err, &got) || len(got) != 1 {
				t.Fatalf("not one problem: %v", err)
			}
			if got[0].Line != c.line {
				t.Errorf("line %d, want %d: %v", got[0].Line, c.line, got[0])
			}
			for _, w := range c.word {
				if !strings.Contains(got[0].Error(), w) {
					t.Errorf("%q is not in %v", w, got[0])
				}
			}
		})
	}
}

// TestProblemsAllAtOnce: an operator mends them in one go, and they come in the order of the files.
func TestProblemsAllAtOnce(t *testing.T) {
	dir := write(t, map[string]string{
		"g.toml":   "include = ['d/*']\n[[session]]\nmaster='/a'\nslave='h::v'\nsetle='1s'\nmax-delete=-1\n",
		"d/1.toml": "[defaults]\nsettle='x'\n", "d/2.toml": "[nonsense]\n",
	})
	_, err := Load(filepath.Join(dir, "g.toml"), nil)
	var got Problems
	if !errors.As(err, &got) {
		t.Fatal(err)
	}
	var places []string
	for _, p := range got {
		rel, _ := filepath.Rel(dir, p.Place.String())
		places = append(places, rel)
	}
	if want := []string{"g.toml:5", "g.toml:6", "d/1.toml:2", "d/2.toml:1"}; !reflect.DeepEqual(places, want) {
		t.Errorf("%v, want %v", places, want)
	}
	if text := err.Error(); !strings.Contains(text, "and 3 more") {
		t.Errorf("the error does not count them: %s", text)
	}
}

// TestOnlyOwnersWord: what others may write is not taken for root's word.
func TestOnlyOwnersWord(t *testing.T) {
	dir := write(t, map[string]string{"g.toml": "include = ['d/*']\n", "d/1.toml": ""})
	main := filepath.Join(dir, "g.toml")
	for _, path := range []string{main, filepath.Join(dir, "d/1.toml")} {
		if err := os.Chmod(path, 0o664); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(main, nil); err == nil || !strings.Contains(err.Error(), "chmod go-w "+path) {
			t.Errorf("%s is taken: %v", path, err)
		}
		if err := errors.Join(os.Chmod(path, 0o644), os.Chown(path, 65534, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(main, nil); err == nil || !strings.Contains(err.Error(), "chown root "+path) {
			t.Errorf("%s of somebody else is taken: %v", path, err)
		}
		if err := os.Chown(path, os.Geteuid(), 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(main, nil); err != nil {
		t.Error(err)
	}
	if _, err := Load(dir+"/none", nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "--config") {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Load(dir, nil); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("a directory: %v", err)
	}
}

func TestMissing(t *testing.T) {
	dir := write(t, map[string]string{"file": ""})
	text := fmt.Sprintf("[[volume]]\nname='a'\npath='%s/gone'\n[[session]]\nmaster='%s/file'\nslave='h::v'\n[[session]]\nmaster='%s'\nslave='h::v'\n",
		dir, dir, dir)
	main := filepath.Join(write(t, map[string]string{"g.toml": text}), "g.toml")
	d, err := Load(main, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := d.Missing()
	if len(got) != 2 || got[0].Line != 1 || got[1].Line != 4 || !strings.Contains(got[0].Text, "mount") ||
		!strings.Contains(got[1].Text, "no directory") {
		t.Errorf("%v", got)
	}
}

// TestFind knows a session by the name of its volume, by its path and by a link to that.
func TestFind(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	slave, err := volume.ParseSlave("h::v")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []volume.Master{{Name: "data"}, {Path: dir}, {Path: link}} {
		d := Desired{Sessions: []Session{{Master: m, Slave: slave}}}
		if d.Session(volume.Volume{Name: "data", Path: dir}, slave) == nil {
			t.Errorf("%v is not found", m)
		}
		if d.Session(volume.Volume{Name: "other", Path: "/other"}, slave) != nil {
			t.Errorf("%v is found for another volume", m)
		}
	}
}
