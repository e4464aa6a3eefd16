package slavetest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
)

func readCases() []testCase {
	return []testCase{
		{"info tells who and where", info},
		{"a survey tells all of an entry", surveyEntry},
		{"surveys in parts", surveyParts},
		{"surveys by name", surveyByName},
		{"a survey has a bound in bytes", surveyBound},
		{"a find has a bound in bytes", findBound},
		{"what cannot be surveyed is in the answer", surveyErrors},
		{"hashes", hashes},
		{"counts", counts},
	}
}

func info(f *Fixture) {
	in := f.Tree.Info()
	if f.Blind {
		if in.Root != (os.Geteuid() == 0) || in.FreeBytes < 0 || in.Namespace == "" || in.Path == "" {
			f.Fatalf("%+v", in)
		}
		return
	}
	if in.Root != (os.Geteuid() == 0 && !in.Limits.Namespace()) || in.Identity.BootID == "" || len(in.Identity.Ancestors) < 2 || in.FreeBytes <= 0 {
		f.Fatalf("%+v", in)
	}
	if in.Identity.Ancestors[0] == in.Identity.Ancestors[1] || in.Namespace == "" || in.Path == "" {
		f.Fatalf("%+v", in)
	}
}

func surveyEntry(f *Fixture) {
	op := Put("a", Rec(1, 7), "12345")
	op.Meta.Mode = 0o640
	f.Must(op, Mkdir("d", Rec(2, 0)))
	state, entries := f.Survey("")
	e := entries["a"]
	want := slave.EntryState{
		Name: "a", Kind: slave.File, Record: op.Record, Mode: 0o640, UID: op.Meta.UID, GID: op.Meta.GID, Nlink: 1,
		Size: 5, Mtime: op.Meta.Mtime,
	}
	if e != want {
		f.Fatalf("got %+v, want %+v", e, want)
	}
	if state.Total != 2 || len(entries) != 2 || entries["d"].Kind != slave.Dir || state.Truncated {
		f.Fatalf("%+v", state)
	}
}

func surveyParts(f *Fixture) {
	if err := os.Mkdir(f.Path("big"), 0o755); err != nil {
		f.Fatal(err)
	}
	const total = slave.MaxEntries + 100
	for i := range total {
		if err := os.WriteFile(f.Path(fmt.Sprint("big/", i)), nil, 0o644); err != nil {
			f.Fatal(err)
		}
	}
	whole, err := f.Tree.Survey(f.Context(), []slave.Query{{Path: "big"}})
	if err != nil || !whole[0].Truncated || len(whole[0].Entries) != 0 || whole[0].Total != total {
		f.Fatalf("%v, truncated %v, %d entries, total %d", err, whole[0].Truncated, len(whole[0].Entries), whole[0].Total)
	}
	parts, err := f.Tree.Survey(f.Context(), []slave.Query{
		{Path: "big", Part: 0, Parts: 3}, {Path: "big", Part: 1, Parts: 3}, {Path: "big", Part: 2, Parts: 3},
	})
	if err != nil {
		f.Fatal(err)
	}
	seen := map[string]bool{}
	for i, p := range parts {
		for _, e := range p.Entries {
			if seen[e.Name] || slave.PartOf(e.Name, 3) != uint32(i) {
				f.Fatalf("%q is in part %d", e.Name, i)
			}
			seen[e.Name] = true
		}
		if p.Total != total || p.Truncated {
			f.Fatalf("part %d: total %d", i, p.Total)
		}
	}
	if len(seen) != total {
		f.Fatalf("%d entries of %d", len(seen), total)
	}
}

// surveyBound: targets of links that have no record can be more than one answer holds. The directory is said to be too large then,
// and what does not go into the answer with the directories before it is left to the next one.
func surveyBound(f *Fixture) {
	const perDir = slave.MaxSurvey / 2 / unix.PathMax
	var names []string
	for _, dir := range []string{"big", "half", "another"} {
		n := perDir + 10
		if dir == "big" {
			n = 2*perDir + 10
		}
		if err := os.Mkdir(f.Path(dir), 0o755); err != nil {
			f.Fatal(err)
		}
		for i := range n {
			name := fmt.Sprint("link", i)
			if err := os.Symlink(strings.Repeat("t", unix.PathMax-2), f.Path(dir+"/"+name)); err != nil {
				f.Fatal(err)
			}
			if dir == "big" {
				names = append(names, name)
			}
		}
	}
	for _, q := range []slave.Query{{Path: "big"}, {Path: "big", ByName: true, Names: names}} {
		states, err := f.Tree.Survey(f.Context(), []slave.Query{q})
		if err != nil || !states[0].Truncated || len(states[0].Entries) != 0 || !q.ByName && states[0].Total != int64(len(names)) {
			f.Fatalf("%v, truncated %v, %d entries, total %d", err, states[0].Truncated, len(states[0].Entries), states[0].Total)
		}
	}
	queries := []slave.Query{{Path: "half"}, {Path: "another"}, {Path: "big", Parts: 2}}
	for at, asked := 0, 0; at < len(queries); asked++ {
		states, err := f.Tree.Survey(f.Context(), queries[at:])
		if err != nil || len(states) != 1 || states[0].Truncated || len(states[0].Entries) < perDir/2 {
			f.Fatalf("%v, %d answers, to query %d %d entries", err, len(states), at, len(states[0].Entries))
		}
		at += len(states)
	}
}

// findBound: of many inodes with long paths only the first are told of.
func findBound(f *Fixture) {
	if f.ShortPaths || f.NoLinks {
		return
	}
	dir := strings.TrimSuffix(strings.Repeat(strings.Repeat("d", 250)+"/", 160), "/")
	var ops []slave.Op
	for i, c := range dir + "/" {
		if c == '/' {
			ops = append(ops, Mkdir(dir[:i], Rec(100_000+i, 0)))
		}
	}
	const n = slave.MaxFound/40_000 + 3
	var gfids []xtime.GFID
	for i := range n {
		at := fmt.Sprint(dir, "/f", i)
		ops = append(ops, Linked(Put(at, Rec(i+1, 1), "x"), 2), Link(at+"x", at, Rec(i+1, 1), 2))
		gfids = append(gfids, GFID(i+1))
	}
	f.Must(ops...)
	first, err := f.Tree.Find(f.Context(), gfids)
	if err != nil || len(first) == 0 || len(first) >= n {
		f.Fatalf("%v, %d answers of %d", err, len(first), n)
	}
	rest, err := f.Tree.Find(f.Context(), gfids[len(first):])
	if err != nil || len(rest) != n-len(first) {
		f.Fatalf("%v, %d answers of %d", err, len(rest), n-len(first))
	}
	for i, found := range append(first, rest...) {
		if found.Record != Rec(i+1, 1) || len(found.Path) < len(dir) {
			f.Fatalf("%d: %+v", i, found)
		}
	}
}

// surveyByName: only what was asked for and is there, with the directory's own record, as a listing would tell it.
func surveyByName(f *Fixture) {
	odd := "odd\n\xff"
	f.Must(Mkdir("d", Rec(1, 0)), Put("d/a", Rec(2, 7), "12345"), Put("d/b", Rec(3, 7), ""), Mkdir("d/c", Rec(4, 0)),
		Put("d/"+odd, Rec(5, 7), "x"))
	record, all := f.Survey("d")
	states, err := f.Tree.Survey(f.Context(), []slave.Query{
		{Path: "d", ByName: true, Names: []string{"c", "none", "a", odd}},
		{Path: "d", ByName: true},
		{Path: "", ByName: true, Names: []string{slave.Reserved, "d"}},
		{Path: "none", ByName: true, Names: []string{"x"}},
		{Path: "d", ByName: true, Names: []string{"../d"}},
		{Path: "d", ByName: true, Names: []string{"a", ""}},
		{Path: "d"},
	})
	if err != nil || len(states) != 7 {
		f.Fatalf("%d answers, %v", len(states), err)
	}
	var got []string
	for _, e := range states[0].Entries {
		got = append(got, e.Name)
		if e != all[e.Name] {
			f.Errorf("by name %+v, listed %+v", e, all[e.Name])
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "c", odd}) || states[0].Record != record.Record || states[0].Total != 0 {
		f.Errorf("asked for four, of which three are there: %q, %+v", got, states[0])
	}
	if states[1].Err != nil || len(states[1].Entries) != 0 || states[1].Record != record.Record {
		f.Errorf("asked for no names: %+v", states[1])
	}
	if s := states[2]; s.Err != nil || len(s.Entries) != 1 || s.Entries[0].Name != "d" {
		f.Errorf("of the root: %+v", s)
	}
	if s := states[3]; !errors.Is(s.Err, fs.ErrNotExist) {
		f.Errorf("of what is not there: %+v", s)
	}
	for _, s := range states[4:6] {
		if !errors.Is(s.Err, slave.ErrInvalid) {
			f.Errorf("of what is no name: %+v", s)
		}
	}
	if len(states[6].Entries) != 4 {
		f.Errorf("the listing after them: %+v", states[6])
	}
}

func surveyErrors(f *Fixture) {
	f.Must(Put("file", Rec(1, 1), "x"))
	queries := []slave.Query{{Path: "none"}, {Path: "file"}, {Path: ".georep"}, {Path: "../x"}, {}, {Path: "", Part: 3, Parts: 2}}
	want := []error{fs.ErrNotExist, unix.ENOTDIR, slave.ErrInvalid, slave.ErrInvalid, nil, slave.ErrInvalid}
	states, err := f.Tree.Survey(f.Context(), queries)
	if err != nil || len(states) != len(want) {
		f.Fatalf("%d answers, %v", len(states), err)
	}
	for i, s := range states {
		if !errors.Is(s.Err, want[i]) {
			f.Errorf("%q: got %v, want %v", queries[i].Path, s.Err, want[i])
		}
	}
}

func hashes(f *Fixture) {
	f.Must(Put("a", Rec(1, 1), "hash me"), Put("empty", Rec(2, 1), ""), Mkdir("d", Rec(3, 0)),
		slave.Op{Kind: slave.OpNode, Entry: slave.Fifo, Path: "p", Record: Rec(4, 1), Meta: MetaOf(0o644)})
	paths := []string{"a", "empty", "d", "p", "none", ".georep/owner"}
	got, err := f.Tree.Hash(f.Context(), paths)
	if err != nil || len(got) != len(paths) {
		f.Fatalf("%d answers, %v", len(got), err)
	}
	if got[0].Sum != digestOf(nil, "hash me") || got[0].Size != 7 || got[1].Sum != digestOf(nil, "") {
		f.Fatalf("%+v", got)
	}
	for i, want := range []error{nil, nil, slave.ErrConflict, slave.ErrConflict, fs.ErrNotExist, slave.ErrInvalid} {
		if !errors.Is(got[i].Err, want) {
			f.Errorf("%s: got %v, want %v", paths[i], got[i].Err, want)
		}
	}
}

func counts(f *Fixture) {
	f.Must(Mkdir("d", Rec(1, 0)), Mkdir("d/e", Rec(2, 0)), Put("d/e/a", Rec(3, 1), ""), Put("d/b", Rec(4, 1), ""), Put("c", Rec(5, 1), ""))
	paths := []string{"d", "d/e", "c", "none", ""}
	for _, c := range []struct {
		limit int64
		want  [5]int64
	}{{100, [5]int64{4, 2, 1, 0, 6}}, {2, [5]int64{2, 2, 1, 0, 2}}} {
		got, err := f.Tree.Count(f.Context(), paths, c.limit)
		if err != nil || [5]int64(got) != c.want {
			f.Errorf("limit %d: got %v, want %v (%v)", c.limit, got, c.want, err)
		}
	}
}
