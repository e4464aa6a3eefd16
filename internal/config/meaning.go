package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"georep/internal/nearest"
	"georep/slave/policy"
	"georep/volume"
)

// policyPrefix stands before the keys of a volume's policy.
const policyPrefix = "policy."

// meaning makes tables what they mean. It is used once, and by one goroutine.
type meaning struct {
	known    map[string]string // paths of volumes by name
	defaults []entry
	out      Desired
	wrong    Problems
}

// problem notes a mistake and goes on.
func (m *meaning) problem(at Place, format string, args ...any) {
	m.wrong = append(m.wrong, Problem{at, fmt.Sprintf(format, args...)})
}

// all takes defaults and volumes first: they count for sessions in whatever file.
func (m *meaning) all(tables []*table) {
	for _, t := range tables {
		switch {
		case t.kind == "":
			m.file(t)
		case t.kind == "defaults" && !t.list:
			m.takeDefaults(t)
		case t.kind == "volume" && t.list:
			m.volume(t)
		case t.kind == "web" && !t.list:
			m.web(t)
		case t.kind == "session" && t.list:
		default:
			m.unknownTable(t)
		}
	}
	for _, t := range tables {
		if t.kind == "session" && t.list {
			m.session(t)
		}
	}
}

// unknownTable says what was probably meant.
func (m *meaning) unknownTable(t *table) {
	header := map[string]string{"defaults": "[defaults]", "volume": "[[volume]]", "session": "[[session]]", "web": "[web]"}
	near := t.kind
	if header[near] == "" {
		near = nearest.Word(t.kind, []string{"defaults", "volume", "session", "web"})
	}
	if near != "" {
		m.problem(t.Place, "unknown table [%s]; did you mean %s?", t.kind, header[near])
		return
	}
	m.problem(t.Place, "unknown table [%s]: the tables are [defaults], [[volume]], [[session]] and [web]", t.kind)
}

// file takes what stands before the first table.
func (m *meaning) file(t *table) {
	for _, e := range t.keys {
		first, _, _ := strings.Cut(e.name, ".")
		switch {
		case e.name == "include":
			if e.kind != unstable.Array && e.kind != unstable.String {
				m.problem(e.Place, `include is a list of file names, such as ["conf.d/*.toml"]`)
			}
		case first == "defaults" || first == "volume" || first == "session" || first == "web":
			m.problem(e.Place, "%s cannot stand here: write it as a table of its own, [defaults], [[volume]], [[session]] or [web]", e.name)
		default:
			m.problem(e.Place, "unknown key %s%s: before the first table there is only include; settings of all sessions go below "+
				"[defaults]", e.name, nearest.Hint(e.name, []string{"include"}))
		}
	}
}

// settings are the keys of sessions.
func settings() (names []string) {
	for _, k := range volume.ConfigKeys() {
		names = append(names, k.Name)
	}
	return names
}

// takeDefaults checks each default as if a session had it, so a mistake is told once and in its own
// line.
func (m *meaning) takeDefaults(t *table) {
	whatever := volume.Session{} // its slave
	for _, e := range t.keys {
		if i := slices.IndexFunc(m.defaults, func(d entry) bool { return d.name == e.name }); i >= 0 {
			m.problem(e.Place, "%s has a default already, in %s: take one of them out", e.name, m.defaults[i].Place)
			continue
		}
		if e.name == "started" {
			if _, ok := m.boolean(e); !ok {
				continue
			}
		} else if !m.set(&whatever, e, []string{"started"}) {
			continue
		}
		m.defaults = append(m.defaults, e)
	}
}

// set puts one setting into a session. More are the keys that the table may have besides.
func (m *meaning) set(s *volume.Session, e entry, more []string) bool {
	names := settings()
	if !slices.Contains(names, e.name) {
		m.problem(e.Place, "unknown key %s%s", e.name, orKeys(e.name, append(more, names...)))
		return false
	}
	if e.kind == unstable.Array && !volume.IsList(e.name) {
		m.problem(e.Place, "%s is a list: write one value, in quotes", e.name)
		return false
	}
	if e.kind == unstable.Array {
		e.value = strings.Join(e.values, "\n")
	}
	err := s.Set(e.name, absolute(e))
	if err != nil && e.kind == unstable.Bool { // true for on
		if s.Set(e.name, map[string]string{"true": "on", "false": "off"}[e.value]) == nil {
			return true
		}
	}
	if err == nil && e.name == "exclude-from" {
		err = volume.Session{Config: map[string]string{e.name: absolute(e)}}.CheckFilter()
	}
	if err != nil {
		m.problem(e.Place, "%v", err)
	}
	return err == nil
}

// absolute makes names of files count from the configuration's directory.
func absolute(e entry) string {
	if volume.IsFile(e.name) && !strings.HasPrefix(e.value, "~") {
		return relative(e)
	}
	return e.value
}

// relative makes the name of a file count from the configuration's directory.
func relative(e entry) string {
	if e.value == "" || filepath.IsAbs(e.value) {
		return e.value
	}
	return filepath.Join(filepath.Dir(e.File), e.value)
}

// orKeys is the nearest key, or all where none is near.
func orKeys(name string, keys []string) string {
	if hint := nearest.Hint(name, keys); hint != "" {
		return hint
	}
	return ": the keys are " + list(keys)
}

// boolean is true or false, quoted or not.
func (m *meaning) boolean(e entry) (value, ok bool) {
	if e.value != "true" && e.value != "false" {
		m.problem(e.Place, "%s cannot be %q: it is true or false", e.name, e.value)
		return false, false
	}
	return e.value == "true", true
}

// must is a key that a table needs.
func (m *meaning) must(t *table, name, example string) (entry, bool) {
	e := t.find(name)
	if e == nil {
		m.problem(t.Place, "this [[%s]] has no %s: add %s = %q", t.kind, name, name, example)
		return entry{}, false
	}
	if e.kind != unstable.String {
		m.problem(e.Place, "%s is not text: write it in quotes", name)
		return *e, false
	}
	return *e, true
}

// session takes a session. One with a mistake in it is left out, so that nothing follows from half
// of it.
func (m *meaning) session(t *table) {
	out := Session{Place: t.Place, Started: true}
	master, ok1 := m.must(t, "master", "/srv/data")
	slave, ok2 := m.must(t, "slave", "backup.example.org::copy")
	var err error
	if ok1 {
		if out.Master, err = volume.ParseMaster(master.value); err != nil {
			m.problem(master.Place, "%v", err)
		}
		ok1 = err == nil
	}
	if ok2 {
		if out.Slave, err = volume.ParseSlave(slave.value); err != nil {
			m.problem(slave.Place, "%v", err)
		}
		ok2 = err == nil
	}
	s := volume.Session{Slave: out.Slave, Config: map[string]string{}}
	for _, e := range m.defaults {
		switch {
		case e.name == "started":
			out.Started = e.value == "true"
		case e.name == "ssh-port" && s.Slave.Port != 0: // which it names itself
		default:
			m.set(&s, e, nil)
		}
	}
	for _, e := range t.keys {
		switch e.name {
		case "master", "slave":
		case "started":
			out.Started, _ = m.boolean(e)
		default:
			m.set(&s, e, []string{"master", "slave", "started"})
		}
	}
	out.Config = s.Config
	if ok1 && ok2 && m.meant(master, out) {
		m.out.Sessions = append(m.out.Sessions, out)
	}
}

// meant checks that a session's master is one, and that it is there once.
func (m *meaning) meant(master entry, s Session) bool {
	if name := s.Master.Name; name != "" && m.path(s.Master) == "" {
		names := []string{}
		for n := range m.known {
			names = append(names, n)
		}
		for _, v := range m.out.Volumes {
			names = append(names, v.Name)
		}
		m.problem(master.Place, "there is no volume %s%s: add a [[volume]] with that name and its path, or give the path as the master",
			name, nearest.Hint(name, names))
		return false
	}
	for _, other := range m.out.Sessions {
		if other.Slave == s.Slave && m.path(other.Master) == m.path(s.Master) {
			m.problem(s.Place, "session %s is there already, in %s: take one of them out", s.Name(), other.Place)
			return false
		}
	}
	return true
}

// path is a master's directory, by whatever name; "" where there is none of that name.
func (m *meaning) path(master volume.Master) string {
	path := master.Path
	if path == "" {
		path = m.known[master.Name]
		for _, v := range m.out.Volumes {
			if v.Name == master.Name {
				path = v.Path
			}
		}
	}
	if path == "" {
		return ""
	}
	return resolved(path)
}

// volume takes a volume, and the policy that it names.
func (m *meaning) volume(t *table) {
	name, ok1 := m.must(t, "name", "data")
	path, ok2 := m.must(t, "path", "/srv/data")
	out := Volume{Place: t.Place, Name: name.value, Path: path.value}
	if ok1 {
		if err := volume.CheckName(out.Name); err != nil {
			m.problem(name.Place, "%v", err)
			ok1 = false
		}
	}
	if ok2 && !filepath.IsAbs(out.Path) {
		m.problem(path.Place, "the path %q is not absolute: begin it with /", out.Path)
		ok2 = false
	}
	if t.has {
		out.Policy = map[string]string{}
	}
	for _, e := range t.keys {
		key, isPolicy := strings.CutPrefix(e.name, policyPrefix)
		switch {
		case e.name == "name" || e.name == "path":
		case isPolicy:
			m.policy(&out, key, e)
		default:
			m.problem(e.Place, "unknown key %s%s", e.name, orKeys(e.name, []string{"name", "path", "policy"}))
		}
	}
	for _, other := range m.out.Volumes {
		if ok1 && other.Name == out.Name {
			m.problem(t.Place, "volume %s is there already, in %s: take one of them out", out.Name, other.Place)
			return
		}
	}
	if ok1 && ok2 {
		m.out.Volumes = append(m.out.Volumes, out)
	}
}

// policy takes one key of a volume's policy, as georep volume set does.
func (m *meaning) policy(v *Volume, key string, e entry) {
	var names []string
	for _, k := range policy.Keys() {
		names = append(names, k.Name)
	}
	var p policy.Policy
	if !slices.Contains(names, key) {
		m.problem(e.Place, "unknown policy %s%s", key, orKeys(key, names))
		return
	}
	if err := p.Set(key, e.value); err != nil || e.kind == unstable.Array {
		m.problem(e.Place, "%v", firstError(err, fmt.Errorf("%s is a list: write one value, in quotes", key)))
		return
	}
	value, err := p.Get(key)
	if err != nil {
		m.problem(e.Place, "%v", err)
		return
	}
	v.Policy[key] = value
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
