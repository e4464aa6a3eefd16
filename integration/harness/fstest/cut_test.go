package fstest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestDiskLosesWhatWasNotSynced sees that a cut keeps what was synced, and no more than that for sure: a Disk on which
// nothing is ever lost would prove nothing.
func TestDiskLosesWhatWasNotSynced(t *testing.T) {
	for _, kind := range []string{Ext4, XFS, Btrfs} {
		for _, volatile := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s volatile=%v", kind, volatile), func(t *testing.T) {
				d := NewDisk(t, kind, volatile, 512<<20)
				write := func(name string, sync bool) {
					f, err := os.Create(filepath.Join(d.Dir, name))
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					if _, err := f.WriteString(name); err != nil {
						t.Fatal(err)
					}
					if sync && f.Sync() != nil {
						t.Fatal("sync")
					}
				}
				write("synced", true)
				write("lost", false)
				d.Cut()
				write("later", true)
				d.Restore()
				if b, err := os.ReadFile(filepath.Join(d.Dir, "synced")); err != nil || string(b) != "synced" {
					t.Errorf("what was synced is %q, %v", b, err)
				}
				for _, name := range []string{"lost", "later"} {
					if b, err := os.ReadFile(filepath.Join(d.Dir, name)); err == nil && string(b) == name {
						t.Errorf("%s is there", name)
					}
				}
			})
		}
	}
}
