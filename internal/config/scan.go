package config

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"georep/volume"
)

// table is a table of a file with its lines.
type table struct {
	Place
	kind string // "", of the whole file, or as in its header
	list bool   // [[kind]], not [kind]
	keys []entry
	has  bool // policy: there is a policy table
}

// entry is a key of a table, and its value as text: georep config takes nothing else.
type entry struct {
	Place
	name   string // with its dots
	value  string
	values []string // of an array
	kind   unstable.Kind
}

// find is the key's entry, or nil.
func (t *table) find(name string) *entry {
	if i := slices.IndexFunc(t.keys, func(e entry) bool { return e.name == name }); i >= 0 {
		return &t.keys[i]
	}
	return nil
}

// scanner turns one file into tables.
type scanner struct {
	file   string
	parser unstable.Parser
	tables []*table
	now    *table
	prefix string // of the keys to come, where a table lies in another one
	wrong  Problems
}

// scan reads a file's text. Keys of a table within another one have its name before theirs: policy.no-setuid.
func scan(file string, data []byte) ([]*table, Problems) {
	// The whole decoder refuses what the parser lets pass, such as a key that is there twice.
	var all map[string]any
	if err := toml.Unmarshal(data, &all); err != nil {
		return nil, Problems{syntax(file, err)}
	}
	s := &scanner{file: file, now: &table{Place: Place{File: file}}}
	s.tables = []*table{s.now}
	s.parser.Reset(data)
	for s.parser.NextExpression() {
		node := s.parser.Expression()
		switch node.Kind {
		case unstable.Table, unstable.ArrayTable:
			s.header(node)
		case unstable.KeyValue:
			s.pair(s.prefix, node)
		}
	}
	return s.tables, s.wrong
}

// syntax says where a file is no TOML.
func syntax(file string, err error) Problem {
	var where *toml.DecodeError
	if !errors.As(err, &where) {
		return Problem{Place{File: file}, err.Error()}
	}
	row, column := where.Position()
	return Problem{Place{file, row}, "column " + strconv.Itoa(column) + ": " + strings.TrimPrefix(where.Error(), "toml: ") +
		": see https://toml.io for how such a file is written"}
}

func (s *scanner) place(node *unstable.Node) Place {
	return Place{s.file, s.parser.Shape(node.Raw).Start.Line}
}

// words are the parts of a key, and its place.
func (s *scanner) words(node *unstable.Node) (words []string, at Place) {
	for it := node.Key(); it.Next(); {
		if words == nil {
			at = s.place(it.Node())
		}
		words = append(words, string(it.Node().Data))
	}
	return words, at
}

// header begins a table, or goes on with the one before where it lies in that: [volume.policy].
func (s *scanner) header(node *unstable.Node) {
	words, at := s.words(node)
	if len(words) > 1 && words[0] == s.now.kind {
		s.prefix = strings.Join(words[1:], ".") + "."
		s.now.has = s.now.has || s.prefix == policyPrefix
		return
	}
	s.prefix = ""
	s.now = &table{Place: at, kind: strings.Join(words, "."), list: node.Kind == unstable.ArrayTable}
	s.tables = append(s.tables, s.now)
}

// pair takes a key and its value; a table as a value is the keys in it.
func (s *scanner) pair(prefix string, node *unstable.Node) {
	words, at := s.words(node)
	e := entry{Place: at, name: volume.CurrentName(prefix + strings.Join(words, ".")), kind: node.Value().Kind}
	switch value := node.Value(); value.Kind {
	case unstable.InlineTable:
		s.now.has = s.now.has || e.name+"." == policyPrefix
		for it := value.Children(); it.Next(); {
			s.pair(e.name+".", it.Node())
		}
		return
	case unstable.Array:
		for it := value.Children(); it.Next(); {
			if it.Node().Kind != unstable.String {
				s.wrong = append(s.wrong, Problem{at, e.name + " is a list of something else than texts: write each in quotes"})
				return
			}
			e.values = append(e.values, string(it.Node().Data))
		}
	case unstable.Integer:
		e.value = integer(string(value.Data))
	default:
		e.value = string(value.Data)
	}
	s.now.has = s.now.has || strings.HasPrefix(e.name, policyPrefix)
	if other := s.now.find(e.name); other != nil { // under an old name: what is there twice under one the decoder has refused
		s.wrong = append(s.wrong, Problem{at, e.name + " stands in " + other.Place.String() + " already, under another name: take one of them out"})
		return
	}
	s.now.keys = append(s.now.keys, e)
}

// integer is one as georep config takes it: TOML also has 1_000 and 0x1f.
func integer(text string) string {
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		return text
	}
	return strconv.FormatInt(n, 10)
}
