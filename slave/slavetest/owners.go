package slavetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"georep/marker/xtime"
	"georep/slave"
)

// Claimer opens the slave at a root that may be there already, for somebody who claims it. The caller closes the slave.
type Claimer func(t *testing.T, root string, c slave.Claim) (slave.Tree, error)

// OwnerCase is a slave that was filled, something that befell it while nobody used it, and who comes for it then.
type OwnerCase struct {
	Name   string
	Befall func(f *Owned)
	Claim  slave.Claim // of the usual master and session, where it names none
	// Named has the claim tell the slave's name.
	Named bool
	Want  error
	// Believed tells that what is on record counts still; Same that the slave keeps its name.
	Believed, Same bool
}

// Owned is the slave of an OwnerCase.
type Owned struct {
	*testing.T
	Root string
	Open Claimer
	Name xtime.UUID // of the slave
}

var (
	ours   = slave.Claim{Master: xtime.UUID{1}, Session: xtime.UUID{2}}
	filled = slave.Claim{Proof: slave.Proof{Filled: true}}
	forced = slave.Claim{Proof: slave.Proof{Filled: true}, Force: true}
)

// RunOwners holds a kind of slave to invariant 16: no stamp counts without the slave's owner on record, and nothing is
// taken for the slave that a session has filled. more are cases of this kind alone.
func RunOwners(t *testing.T, open Claimer, more ...OwnerCase) {
	for _, c := range append(ownerCases(), more...) {
		t.Run(c.Name, func(t *testing.T) { c.run(t, open) })
	}
}

func ownerCases() []OwnerCase {
	nothing := func(*Owned) {}
	reserved := func(f *Owned) { f.Remove(slave.Reserved) }
	owner := func(f *Owned) { f.Remove(slave.Reserved + "/owner") }
	emptied := func(f *Owned) { f.Remove(slave.Reserved); f.Remove("d") }
	away := func(f *Owned) { f.Must(os.Rename(f.Root, f.Root+".away")) }
	return []OwnerCase{
		{Name: "nothing", Befall: nothing, Claim: filled, Named: true, Believed: true, Same: true},
		{Name: "nothing, a new session", Befall: nothing, Claim: slave.Claim{Session: xtime.UUID{3}}, Believed: true, Same: true},
		{Name: "nothing, forced", Befall: nothing, Claim: forced, Named: true, Believed: true, Same: true},
		{Name: "an earlier version", Befall: (*Owned).older, Claim: filled, Believed: true},
		{Name: "an earlier version came between", Befall: (*Owned).older, Claim: filled, Named: true, Believed: true, Same: true},
		{Name: "reserved gone", Befall: reserved, Claim: filled, Named: true, Want: slave.ErrAbsent},
		{Name: "reserved gone, an earlier version's", Befall: reserved, Claim: filled, Want: slave.ErrAbsent},
		{Name: "reserved gone, a new session", Befall: reserved, Want: slave.ErrNotEmpty},
		{Name: "reserved gone, forced", Befall: reserved, Claim: forced, Named: true},
		{Name: "owner gone", Befall: owner, Claim: filled, Named: true, Want: slave.ErrAbsent},
		{Name: "owner gone, a new session", Befall: owner, Want: slave.ErrNotEmpty},
		{Name: "owner gone, forced", Befall: owner, Claim: forced},
		{Name: "emptied", Befall: emptied, Claim: filled, Named: true, Want: slave.ErrAbsent},
		{Name: "emptied, a new session", Befall: emptied},
		{Name: "emptied, forced", Befall: emptied, Claim: forced, Named: true},
		{Name: "away", Befall: away, Claim: filled, Named: true, Want: slave.ErrAbsent},
		{Name: "another slave", Befall: (*Owned).another, Claim: filled, Named: true, Want: slave.ErrAbsent},
		{Name: "another slave, forced", Befall: (*Owned).another, Claim: forced, Named: true},
		{Name: "another master came between", Befall: (*Owned).lend, Claim: filled, Named: true, Want: slave.ErrForeign},
		{Name: "another master came between, forced", Befall: (*Owned).lend, Claim: forced, Named: true},
		{Name: "promoted", Befall: (*Owned).promote, Claim: filled, Named: true, Want: slave.ErrPromoted},
		{Name: "promoted, forced", Befall: (*Owned).promote, Claim: forced, Named: true, Want: slave.ErrPromoted},
		{Name: "promoted, a new session", Befall: (*Owned).promote, Claim: slave.Claim{Session: xtime.UUID{3}}, Want: slave.ErrPromoted},
		{Name: "promoted, another master, forced", Befall: (*Owned).promote, Claim: slave.Claim{Master: xtime.UUID{9}, Force: true},
			Want: slave.ErrPromoted},
		{Name: "demoted", Befall: (*Owned).demote, Claim: filled, Named: true},
		{Name: "demoted, a new session", Befall: (*Owned).demote, Claim: slave.Claim{Session: xtime.UUID{3}}},
		{Name: "demoted, forced", Befall: (*Owned).demote, Claim: forced, Named: true},
		{Name: "demoted, another master", Befall: (*Owned).demote, Claim: slave.Claim{Master: xtime.UUID{9}}, Want: slave.ErrForeign},
	}
}

// Must ends the test where err is not nil.
func (f *Owned) Must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// Remove removes what is at a path of the slave, with all below it.
func (f *Owned) Remove(path string) {
	f.Helper()
	f.Must(os.RemoveAll(filepath.Join(f.Root, path)))
}

// Fill opens a slave at root for a claim and gives it two directories and a file, all of it stamped, and its name.
func (f *Owned) Fill(root string, c slave.Claim) xtime.UUID {
	f.Helper()
	tree, err := f.Open(f.T, root, c)
	f.Must(err)
	at := &Fixture{T: f.T, Tree: tree, Root: root}
	at.Must(Mkdir("d", Rec(1, 0)), Mkdir("d/e", Rec(2, 0)), Put("d/e/f", Rec(3, 5), "content"))
	at.Must(Finish("d/e", Rec(2, 5), 1), Finish("d", Rec(1, 5), 1), Finish("", Rec(4, 5), 1))
	f.Must(tree.Close())
	return tree.Info().Slave
}

// older makes the owner's file what an earlier version wrote.
func (f *Owned) older() {
	path := filepath.Join(f.Root, slave.Reserved, "owner")
	text, err := os.ReadFile(path)
	f.Must(err)
	text = regexp.MustCompile(`(?m)^(slave|root) = .*\n`).ReplaceAll(text, nil)
	f.Must(os.WriteFile(path, text, 0o600))
}

// promote makes it the writable side, as its host does.
func (f *Owned) promote() {
	f.owner(func(o *slave.Owner) slave.Owner {
		return o.Promote(slave.Promotion{At: time.Unix(1_700_000_000, 0).UTC(), By: "root"}, xtime.UUID{7})
	})
}

// demote gives it back.
func (f *Owned) demote() {
	f.promote()
	f.owner((*slave.Owner).Demote)
}

// owner changes the owner's file.
func (f *Owned) owner(change func(*slave.Owner) slave.Owner) {
	path := filepath.Join(f.Root, slave.Reserved, "owner")
	text, err := os.ReadFile(path)
	f.Must(err)
	have, err := slave.ParseOwner(text)
	f.Must(err)
	next := change(have)
	text, err = next.Text()
	f.Must(err)
	f.Must(os.WriteFile(path, text, 0o600))
}

// another puts a further slave of the same master in its place.
func (f *Owned) another() {
	other := f.Root + ".other"
	f.Must(os.Mkdir(other, 0o755))
	f.Fill(other, ours)
	f.Must(os.Rename(f.Root, f.Root+".away"))
	f.Must(os.Rename(other, f.Root))
}

// lend has another master use it for a while.
func (f *Owned) lend() {
	tree, err := f.Open(f.T, f.Root, slave.Claim{Master: xtime.UUID{9}, Session: xtime.UUID{9}, Force: true})
	f.Must(err)
	f.Must(tree.Close())
}

func (c *OwnerCase) run(t *testing.T, open Claimer) {
	f := &Owned{T: t, Root: filepath.Join(t.TempDir(), "slave"), Open: open}
	f.Must(os.Mkdir(f.Root, 0o755))
	f.Name = f.Fill(f.Root, ours)
	c.Befall(f)
	before := namesIn(f.Root)
	claim := c.Claim
	if claim.Master.IsZero() {
		claim.Master = ours.Master
	}
	if claim.Session.IsZero() {
		claim.Session = ours.Session
	}
	if c.Named {
		claim.Proof.Slave = f.Name
	}
	tree, err := open(t, f.Root, claim)
	if !errors.Is(err, c.Want) {
		t.Fatalf("got %v, want %v", err, c.Want)
	}
	if err != nil {
		if after := namesIn(f.Root); len(after) != len(before) {
			t.Errorf("there is %q now, and was %q", after, before)
		}
		return
	}
	defer tree.Close()
	if same := tree.Info().Slave == f.Name; same != c.Same || tree.Info().Slave.IsZero() {
		t.Errorf("its name was %v and is %v", f.Name, tree.Info().Slave)
	}
	at := &Fixture{T: t, Tree: tree, Root: f.Root}
	for _, path := range []string{"", "d", "d/e", "d/e/f"} {
		if _, err := os.Lstat(at.Path(path)); err != nil {
			continue
		}
		if got := at.Record(path).Xtime != 0; got != c.Believed {
			t.Errorf("%q is on record with %+v", path, at.Record(path))
		}
	}
	again, err := open(t, f.Root, slave.Claim{Master: claim.Master, Session: claim.Session, Proof: slave.Proof{Filled: true,
		Slave: tree.Info().Slave}})
	if err == nil {
		again.Close()
	}
	if !errors.Is(err, slave.ErrBusy) {
		t.Errorf("open again: %v", err)
	}
}

// namesIn lists a directory, nil where there is none.
func namesIn(dir string) (out []string) {
	list, _ := os.ReadDir(dir) // the tests say what is to be there
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

// RunGone holds a kind of slave to noticing, while it is open, that its root is not at its path any more, although nobody
// asks for anything, and that nothing is done then to what is there instead.
func RunGone(t *testing.T, open Claimer) {
	for name, befall := range map[string]func(f *Owned){
		"renamed": func(f *Owned) { f.Must(os.Rename(f.Root, f.Root+".away")) },
		"renamed, and another in its place": func(f *Owned) {
			f.Must(os.Rename(f.Root, f.Root+".away"))
			f.Must(os.Mkdir(f.Root, 0o755))
		},
		"removed": func(f *Owned) { f.Must(os.RemoveAll(f.Root)) },
	} {
		for _, idle := range []bool{true, false} {
			t.Run(name+map[bool]string{true: " while idle", false: ""}[idle], func(t *testing.T) {
				f := &Owned{T: t, Root: filepath.Join(t.TempDir(), "slave"), Open: open}
				f.Must(os.Mkdir(f.Root, 0o755))
				tree, err := open(t, f.Root, ours)
				f.Must(err)
				defer tree.Close()
				at := &Fixture{T: t, Tree: tree, Root: f.Root}
				at.Must(Mkdir("d", Rec(1, 0)))
				befall(f)
				if !idle {
					results, err := tree.Apply(context.Background(), &slave.Batch{Ops: []slave.Op{Finish("d", Rec(1, 5), 1),
						Finish("", Rec(4, 5), 1)}})
					for i, r := range results {
						if err == nil && r.Err == nil {
							t.Errorf("directory %d was stamped", i)
						}
					}
				}
				lost := tree.(interface {
					Done() <-chan struct{}
					Err() error
				})
				select {
				case <-lost.Done():
				case <-time.After(time.Minute):
					t.Fatal("nothing was noticed")
				}
				if !errors.Is(lost.Err(), slave.ErrAbsent) {
					t.Errorf("it ended with %v", lost.Err())
				}
				if _, err := tree.Survey(context.Background(), []slave.Query{{}}); !errors.Is(err, slave.ErrAbsent) {
					t.Errorf("a survey afterwards: %v", err)
				}
				f.Must(tree.Close())
				if there := namesIn(f.Root); len(there) > 0 {
					t.Errorf("in its place there is %q", there)
				}
			})
		}
	}
}
