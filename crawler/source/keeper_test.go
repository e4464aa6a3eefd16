package source

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

// TestForgedKept: what is kept is believed of the entries of the root's owner, and of nobody else's.
func TestForgedKept(t *testing.T) {
	dir := t.TempDir()
	const login, user = 1234, 4321
	for name, uid := range map[string]int{"true": login, "forged": user, "nothing": login} {
		path := filepath.Join(dir, name)
		err := os.WriteFile(path, nil, 0o600)
		if err == nil && name != "nothing" {
			err = unix.Setxattr(path, slave.AttrStat, []byte("104755 0,0 0:0"), 0)
		}
		if err == nil {
			err = os.Lchown(path, uid, uid)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Lchown(dir, login, login); err != nil {
		t.Fatal(err)
	}
	root, err := beneath.OpenRoot(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	st, err := root.Stat("")
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(root, &st)
	for name, want := range map[string][2]uint32{"true": {0o104755, 0}, "forged": {0o100600, user}, "nothing": {0o100600, login}} {
		st, err := root.Stat(name)
		if err == nil {
			err = k.look(root, name, &st)
		}
		if err != nil || st.Mode != want[0] || st.UID != want[1] {
			t.Errorf("%s is %o of %d, %v; want %o of %d", name, st.Mode, st.UID, err, want[0], want[1])
		}
	}
	if _, ok := k.master(slave.AttrStat); ok {
		t.Error("what is kept is replicated")
	}
	if name, ok := k.master(slave.AttrKept + "security.capability"); !ok || name != slave.AttrCapability {
		t.Errorf("a capability is %q", name)
	}
	if name, ok := (*keeper)(nil).master(slave.AttrStat); !ok || name != slave.AttrStat {
		t.Error("without the policy an xattr is an xattr")
	}
}
