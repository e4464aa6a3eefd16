package filter

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Spec is a filter as the operator writes it. It is text as it was written, and is checked by Load.
type Spec struct {
	From    string // a file of patterns, "" for none
	Exclude string // patterns, one a line
	Include string // the same, of what is taken in although a line before excludes it
	Larger  int64  // files of more bytes are left out; 0: whatever their size
	Caches  bool   // what lies in a directory with a CACHEDIR.TAG is left out, but for that
	Deletes bool   // what is left out is removed on the slave
}

// Tag is the file that makes a directory one of what can be made again, where it begins with Signature
// (https://bford.info/cachedir/).
const (
	Tag       = "CACHEDIR.TAG"
	Signature = "Signature: 8a477f597d28d172789f06886806bc55"
)

// maxFile bounds the file of patterns.
const maxFile = 1 << 20

// maxRules bounds the patterns: each name is held against them.
const maxRules = 10_000

// Filter is what a Spec says. It is made by Load, and shared by all that look at the volume.
type Filter struct {
	rules   []rule
	names   []int // rules without a path, the last first
	root    *Dir
	larger  int64
	caches  bool
	deletes bool
	sum     [16]byte
}

// Check parses the lines of a spec, without its file. It finds every mistake that Load would find
// in them, and reads nothing.
func (s *Spec) Check() error {
	for _, text := range []string{s.Exclude, s.Include} {
		if _, err := lines(text, false); err != nil {
			return err
		}
	}
	return nil
}

// Load makes the filter, and reads the file of patterns for it. It is nil where nothing is left
// out. Errors name the setting, and the line that is wrong. The file of patterns is read once: a
// change to it counts from the next Load on.
func (s *Spec) Load() (*Filter, error) {
	f := &Filter{larger: s.Larger, caches: s.Caches, deletes: s.Deletes}
	if s.From != "" {
		text, err := readFile(s.From)
		if err != nil {
			return nil, fmt.Errorf("exclude-from: %w: mend the file, or name another one", err)
		}
		if f.rules, err = lines(text, false); err != nil {
			return nil, fmt.Errorf("exclude-from: %s: %w", s.From, err)
		}
	}
	for _, part := range []struct {
		key, text string
		include   bool
	}{{"exclude", s.Exclude, false}, {"include", s.Include, true}} {
		more, err := lines(part.text, part.include)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.key, err)
		}
		f.rules = append(f.rules, more...)
	}
	if len(f.rules) > maxRules {
		return nil, fmt.Errorf("the filter has %d patterns: at most %d", len(f.rules), maxRules)
	}
	if !slices.ContainsFunc(f.rules, func(r rule) bool { return !r.include }) && f.larger == 0 && !f.caches {
		return nil, nil
	}
	f.prepare()
	return f, nil
}

// readFile reads the file of patterns, if it is a regular one of bounded size.
func readFile(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return "", fmt.Errorf("%s is no file of at most %d bytes", path, maxFile)
	}
	text, err := os.ReadFile(path)
	return string(text), err
}

// prepare sorts the rules by kind, and computes the sum. The sum is recorded on slaves: what goes
// into it, and in which order, must never change.
func (f *Filter) prepare() {
	f.root = &Dir{f: f}
	h := sha256.New()
	for i := range f.rules {
		r := &f.rules[i]
		if r.path == nil {
			f.names = append(f.names, i)
		} else {
			f.root.at = r.reach(f.root.at, int32(i), 0)
		}
		fmt.Fprintf(h, "%t %s\n", r.include, strings.TrimPrefix(r.line, "!"))
	}
	slices.Reverse(f.names)
	slices.SortFunc(f.root.at, position.compare)
	fmt.Fprintf(h, "larger %d caches %t deletes %t", f.larger, f.caches, f.deletes)
	copy(f.sum[:], h.Sum(nil))
	binary.BigEndian.PutUint16(f.sum[:], binary.BigEndian.Uint16(f.sum[:])|1) // never zero
}

// Sum tells filters apart: two that leave out the same by the same lines have the same. That of nil
// is zero. It goes on record on the slave, and says under which filter a stamp was made.
func (f *Filter) Sum() (sum [16]byte) {
	if f != nil {
		sum = f.sum
	}
	return sum
}

// Root is the matcher for the volume's root.
func (f *Filter) Root() *Dir {
	if f == nil {
		return nil
	}
	return f.root
}

// Deletes tells whether what is left out is removed on the slave.
func (f *Filter) Deletes() bool { return f != nil && f.deletes }

// Caches tells whether a directory's Tag counts.
func (f *Filter) Caches() bool { return f != nil && f.caches }

// Sized tells whether a file's size counts.
func (f *Filter) Sized() bool { return f != nil && f.larger > 0 }

// Paths tells whether where a directory lies makes a difference: there are patterns with a slash.
func (f *Filter) Paths() bool { return f != nil && len(f.root.at) > 0 }

// String sums the filter up for people. It has counts, not the patterns: those may be many, and are
// in the session's configuration.
func (f *Filter) String() string {
	if f == nil {
		return ""
	}
	var out []string
	exclude, include := 0, 0
	for i := range f.rules {
		if f.rules[i].include {
			include++
		} else {
			exclude++
		}
	}
	add := func(is bool, format string, args ...any) {
		if is {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	add(exclude > 0, "%d exclude", exclude)
	add(include > 0, "%d include", include)
	add(f.larger > 0, "nothing larger than %d bytes", f.larger)
	add(f.caches, "no caches (%s)", Tag)
	add(f.deletes, "what is excluded is deleted on the slave")
	return strings.Join(out, ", ")
}
