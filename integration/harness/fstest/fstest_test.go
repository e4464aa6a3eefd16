package fstest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// magics are what statfs tells of each kind.
func magics() map[string]int64 {
	return map[string]int64{
		Ext4: unix.EXT4_SUPER_MAGIC, XFS: unix.XFS_SUPER_MAGIC, Btrfs: unix.BTRFS_SUPER_MAGIC, Tmpfs: unix.TMPFS_MAGIC,
		Overlay: unix.OVERLAYFS_SUPER_MAGIC,
	}
}

func TestMountIsFreshAndOfItsKind(t *testing.T) {
	for _, kind := range append(All(), Overlay) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := Mount(t, kind, Options{})
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil {
				t.Fatal(err)
			}
			if st.Type != magics()[kind] {
				t.Errorf("file system type %#x, want %#x", st.Type, magics()[kind])
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 0 {
				t.Errorf("fresh mount holds %v (%v)", entries, err)
			}
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMountsGoAwayEvenWhenBusy(t *testing.T) {
	for _, kind := range append(All(), Overlay) {
		t.Run(kind, func(t *testing.T) {
			var dir string
			var busy *os.File
			t.Run("inner", func(t *testing.T) {
				dir = Mount(t, kind, Options{})
				var err error
				if busy, err = os.Create(filepath.Join(dir, "busy")); err != nil {
					t.Fatal(err)
				}
			})
			defer busy.Close()
			mounts, err := os.ReadFile("/proc/self/mounts")
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(mounts), dir) {
				t.Errorf("%s is still mounted", dir)
			}
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("%s is still there: %v", dir, err)
			}
		})
	}
}

func TestSizeBounds(t *testing.T) {
	for _, kind := range []string{Ext4, XFS, Tmpfs} {
		t.Run(kind, func(t *testing.T) {
			const size = 320 << 20
			dir := Mount(t, kind, Options{Size: size})
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil {
				t.Fatal(err)
			}
			if total := int64(st.Blocks) * st.Bsize; total > size || total < size/2 {
				t.Errorf("%d bytes, asked for %d", total, size)
			}
		})
	}
}

func TestOptionsReachMkfsAndMount(t *testing.T) {
	dir := Mount(t, Ext4, Options{Mkfs: []string{"-N", "64"}, MountOptions: "noatime"})
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Files > 256 {
		t.Errorf("%d inodes, asked mkfs for 64", st.Files)
	}
	if st.Flags&unix.ST_NOATIME == 0 {
		t.Error("not mounted with noatime")
	}
}

func TestOverlayShowsItsLowerLayer(t *testing.T) {
	dir := Mount(t, Overlay, Options{Lower: func(lower string) error {
		return os.WriteFile(filepath.Join(lower, "below"), []byte("lower"), 0o644)
	}})
	got, err := os.ReadFile(filepath.Join(dir, "below"))
	if err != nil || string(got) != "lower" {
		t.Fatalf("read %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "below"), []byte("copied up"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestEachRunsEveryKind(t *testing.T) {
	seen := map[string]bool{}
	Each(t, func(t *testing.T, dir string) { seen[t.Name()] = true })
	if got, want := fmt.Sprint(len(seen)), fmt.Sprint(len(All())); got != want {
		t.Errorf("%s subtests, want %s", got, want)
	}
}
