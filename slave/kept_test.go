package slave

import (
	"testing"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

func TestKeptRoundTrip(t *testing.T) {
	file, dir := beneath.Stat{Mode: unix.S_IFREG | 0o600}, beneath.Stat{Mode: unix.S_IFDIR | 0o700}
	full := file
	full.Size = 1
	for _, c := range []struct {
		kept Kept
		on   beneath.Stat
		ok   bool
	}{
		{Kept{Mode: unix.S_IFREG | 0o6755, UID: 1<<32 - 2, GID: 7}, full, true},
		{Kept{Mode: unix.S_IFDIR | 0o1777}, dir, true},
		{Kept{Mode: unix.S_IFBLK | 0o660, Rdev: unix.Mkdev(4095, 1<<20-1)}, file, true},
		{Kept{Mode: unix.S_IFSOCK | 0o777}, file, true},
		{Kept{Mode: unix.S_IFBLK | 0o660}, full, false},
		{Kept{Mode: unix.S_IFDIR | 0o755}, file, false},
		{Kept{Mode: unix.S_IFREG | 0o755}, dir, false},
		{Kept{Mode: unix.S_IFLNK | 0o777}, file, false},
	} {
		got, ok := ParseKept(c.kept.Text(), &c.on)
		if ok != c.ok || ok && got != c.kept {
			t.Errorf("%s on %o: %+v, %v", c.kept.Text(), c.on.Mode, got, ok)
		}
	}
	// As rsync writes it.
	if k, ok := ParseKept([]byte("100755 0,0 1000:100"), &file); !ok || k != (Kept{Mode: 0o100755, UID: 1000, GID: 100}) {
		t.Errorf("%+v, %v", k, ok)
	}
	for _, bad := range []string{"", "100644", "x 0,0 1:1", "100644 0,0 1", "7100644 0,0 1:1", "100644 0,0 -1:1", "100644 0,0 4294967296:1"} {
		if k, ok := ParseKept([]byte(bad), &file); ok {
			t.Errorf("%q is taken for %+v", bad, k)
		}
	}
}

func TestKeptNames(t *testing.T) {
	for _, name := range []string{"user.x", "system.posix_acl_access", "security.capability", "trusted.overlay.opaque"} {
		kept, ok := KeptName(name)
		back, fine := MasterName(kept)
		if !ok || !fine || back != name {
			t.Errorf("%s is kept as %s and comes back as %s", name, kept, back)
		}
	}
	for _, name := range []string{AttrStat, AttrKept + "security.capability", AttrKept} {
		if kept, ok := KeptName(name); ok {
			t.Errorf("%s is kept as %s", name, kept)
		}
	}
	for _, here := range []string{AttrStat, AttrKept, AttrKept + "user.x", "user.georep.other"} {
		if name, ok := MasterName(here); ok {
			t.Errorf("%s is taken for the master's %s", here, name)
		}
	}
}
