package plan

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

func gfid(b byte) xtime.GFID { return xtime.GFID{b} }

func file(name string, g byte, x xtime.Time, size int64) Entry {
	return Entry{Name: name, Kind: slave.File, Record: slave.Record{GFID: gfid(g), Xtime: x},
		Stat: beneath.Stat{Mode: 0o100644, Nlink: 1, Size: size, Mtime: beneath.Time{Sec: 100}}}
}

func there(e Entry) slave.EntryState {
	return slave.EntryState{Name: e.Name, Kind: e.Kind, Record: e.Record, Mode: e.Stat.Mode & 07777, Nlink: e.Stat.Nlink,
		UID: e.Stat.UID, GID: e.Stat.GID, Size: e.Stat.Size, Mtime: e.Stat.Mtime, Rdev: e.Stat.Rdev, Target: e.Target}
}

func TestFiles(t *testing.T) {
	const big = 1 << 20
	base := file("f", 1, 10, big)
	for name, c := range map[string]struct {
		change func(m *Entry, s *slave.EntryState)
		quick  bool
		want   How
		inStep bool
	}{
		"in step":                              {change: func(m *Entry, s *slave.EntryState) {}, inStep: true},
		"in step whatever size and mtime say":  {change: func(m *Entry, s *slave.EntryState) { s.Size, s.Mtime.Sec = 1, 1 }, inStep: true},
		"newer, other size":                    {change: func(m *Entry, s *slave.EntryState) { m.Record.Xtime++; m.Stat.Size++ }, want: Replace},
		"newer, other mtime":                   {change: func(m *Entry, s *slave.EntryState) { m.Record.Xtime++; m.Stat.Mtime.Nsec++ }, want: Replace},
		"newer, mtime and size as before":      {change: func(m *Entry, s *slave.EntryState) { m.Record.Xtime++ }, want: Compare},
		"newer, as before, small":              {change: func(m *Entry, s *slave.EntryState) { m.Record.Xtime++; m.Stat.Size, s.Size = 9, 9 }, want: Compare},
		"newer, quick does not matter":         {change: func(m *Entry, s *slave.EntryState) { m.Record.Xtime++ }, quick: true, want: Compare},
		"older: the master went back in time":  {change: func(m *Entry, s *slave.EntryState) { m.Record.Xtime-- }, want: Compare},
		"other inode, same size and mtime":     {change: func(m *Entry, s *slave.EntryState) { m.Record.GFID = gfid(2) }, want: Compare},
		"other inode, other mtime":             {change: func(m *Entry, s *slave.EntryState) { m.Record.GFID = gfid(2); s.Mtime.Sec++ }, want: Replace},
		"other inode, linked on the slave":     {change: func(m *Entry, s *slave.EntryState) { m.Record.GFID = gfid(2); s.Nlink = 2 }, want: Replace},
		"other inode, quick":                   {change: func(m *Entry, s *slave.EntryState) { m.Record.GFID = gfid(2) }, quick: true, want: Adopt},
		"no record, same size":                 {change: func(m *Entry, s *slave.EntryState) { s.Record = slave.Record{}; s.Mtime.Sec++ }, want: Compare},
		"no record, other size":                {change: func(m *Entry, s *slave.EntryState) { s.Record = slave.Record{}; s.Size++ }, want: Replace},
		"no record, same size and mtime quick": {change: func(m *Entry, s *slave.EntryState) { s.Record = slave.Record{} }, quick: true, want: Adopt},
		"no record, linked alike":              {change: func(m *Entry, s *slave.EntryState) { s.Record = slave.Record{}; s.Nlink, m.Stat.Nlink = 2, 2 }, want: Compare},
		"no record, linked otherwise":          {change: func(m *Entry, s *slave.EntryState) { s.Record = slave.Record{}; s.Nlink = 3 }, want: Replace},
		"another kind":                         {change: func(m *Entry, s *slave.EntryState) { s.Kind = slave.Symlink }, want: Replace},
	} {
		m, s := base, there(base)
		c.change(&m, &s)
		p := Compute([]Entry{m}, []slave.EntryState{s}, Options{Namespace: xtime.Trusted, Quick: c.quick})
		if c.inStep {
			if len(p.Items)+len(p.Children)+len(p.Stale) != 0 {
				t.Errorf("%s: %+v", name, p)
			}
			continue
		}
		if len(p.Items) != 1 || p.Items[0].How != c.want || p.Items[0].ParkFirst {
			t.Errorf("%s: %+v, want %v", name, p.Items, c.want)
		}
	}
}

func TestShortOfNames(t *testing.T) {
	m := file("f", 1, 10, 5)
	m.Stat.Nlink = 3
	for slaves, want := range map[uint32]int{2: 1, 3: 0, 4: 0} {
		s := there(m)
		s.Nlink = slaves
		p := Compute([]Entry{m}, []slave.EntryState{s}, Options{Namespace: xtime.Trusted})
		if len(p.MissingNames) != want || len(p.Items) != 0 {
			t.Errorf("%d of 3 names: %+v", slaves, p)
		}
	}
}

func TestDirectories(t *testing.T) {
	dir := Entry{Name: "d", Kind: slave.Dir, Record: slave.Record{GFID: gfid(1), Xtime: 10}}
	state := there(dir)
	for name, c := range map[string]struct {
		change func(m *Entry, s *slave.EntryState)
		want   *Child
	}{
		"in step":          {func(m *Entry, s *slave.EntryState) {}, nil},
		"newer":            {func(m *Entry, s *slave.EntryState) { m.Record.Xtime++ }, &Child{}},
		"older":            {func(m *Entry, s *slave.EntryState) { m.Record.Xtime-- }, &Child{}},
		"refuses marks":    {func(m *Entry, s *slave.EntryState) { m.Always = true }, &Child{}},
		"another one":      {func(m *Entry, s *slave.EntryState) { s.Record.GFID = gfid(9) }, &Child{Make: true}},
		"not on record":    {func(m *Entry, s *slave.EntryState) { s.Record = slave.Record{} }, &Child{Make: true}},
		"a file is there":  {func(m *Entry, s *slave.EntryState) { s.Kind = slave.File }, &Child{Make: true, Absent: true, ParkFirst: &slave.EntryState{}}},
		"nothing is there": {func(m *Entry, s *slave.EntryState) { s.Name = "other" }, &Child{Make: true, Absent: true}},
	} {
		m, s := dir, state
		c.change(&m, &s)
		p := Compute([]Entry{m}, []slave.EntryState{s}, Options{Namespace: xtime.Trusted})
		if c.want == nil {
			if len(p.Children) != 0 {
				t.Errorf("%s: goes down", name)
			}
			continue
		}
		got := p.Children
		if len(got) != 1 || got[0].Make != c.want.Make || got[0].Absent != c.want.Absent ||
			(got[0].ParkFirst != nil) != (c.want.ParkFirst != nil) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestWithoutRecordsAttributesDecide(t *testing.T) {
	link := Entry{Name: "l", Kind: slave.Symlink, Target: "x", Record: slave.Record{GFID: gfid(1), Xtime: 10},
		Stat: beneath.Stat{Mode: 0o120777, Nlink: 1, UID: 5, Mtime: beneath.Time{Sec: 7}}}
	for name, change := range map[string]func(s *slave.EntryState){
		"target": func(s *slave.EntryState) { s.Target = "y" },
		"owner":  func(s *slave.EntryState) { s.UID = 6 },
		"mtime":  func(s *slave.EntryState) { s.Mtime.Nsec = 1 },
		"":       func(s *slave.EntryState) {},
	} {
		s := there(link)
		s.Record = slave.Record{}
		change(&s)
		if got := InStep(link, &s, xtime.User); got != (name == "") {
			t.Errorf("%q changed: in step is %v", name, got)
		}
		if InStep(link, &s, xtime.Trusted) {
			t.Errorf("%q: in step without a record, where records can be", name)
		}
	}
	dev := Entry{Name: "d", Kind: slave.CharDev, Stat: beneath.Stat{Mode: 0o020600, Rdev: 5}}
	s := there(dev)
	s.Rdev = 6
	if InStep(dev, &s, xtime.User) {
		t.Error("another device is in step")
	}
}

func TestKindsInTheWay(t *testing.T) {
	m := file("x", 1, 10, 5)
	s := slave.EntryState{Name: "x", Kind: slave.Dir, Record: slave.Record{GFID: gfid(4)}}
	p := Compute([]Entry{m}, []slave.EntryState{s}, Options{Namespace: xtime.Trusted})
	if len(p.Items) != 1 || !p.Items[0].ParkFirst || p.Items[0].How != New || len(p.Stale) != 0 {
		t.Errorf("%+v", p)
	}
}

// TestPlanReachesTheMaster applies plans of random states in a model and checks that a second plan is empty, and that
// nothing is stale that the master has.
func TestPlanReachesTheMaster(t *testing.T) {
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var m []Entry
		var s []slave.EntryState
		for i := range 30 {
			e := file(fmt.Sprint("f", i), byte(rnd.IntN(40)+1), xtime.Time(rnd.IntN(3)+1), int64(rnd.IntN(3)))
			if rnd.IntN(3) == 0 {
				e.Kind = slave.Dir
			}
			if rnd.IntN(3) > 0 {
				m = append(m, e)
			}
			e.Record.Xtime = xtime.Time(rnd.IntN(3) + 1)
			if rnd.IntN(3) > 0 {
				s = append(s, there(e))
			}
		}
		after := model(t, m, s, Compute(m, s, Options{Namespace: xtime.Trusted}))
		if p := Compute(m, after, Options{Namespace: xtime.Trusted}); len(p.Items)+len(p.Children)+len(p.Stale) != 0 {
			t.Fatalf("seed %d: a second plan is left: %+v", seed, p)
		}
	}
}

func model(t *testing.T, m []Entry, s []slave.EntryState, p Plan) []slave.EntryState {
	by := map[string]slave.EntryState{}
	for _, e := range s {
		by[e.Name] = e
	}
	for _, e := range p.Stale {
		for _, x := range m {
			if x.Name == e.Name {
				t.Fatalf("%s is stale although the master has it", e.Name)
			}
		}
		delete(by, e.Name)
	}
	for _, it := range p.Items {
		by[it.Entry.Name] = there(it.Entry)
	}
	for _, c := range p.Children {
		by[c.Entry.Name] = there(c.Entry)
	}
	var out []slave.EntryState
	for _, e := range by {
		out = append(out, e)
	}
	return out
}
