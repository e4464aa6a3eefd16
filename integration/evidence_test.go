package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"georep/integration/harness/compare"
)

// evidence shows what both sides have on record of entries that differ, and of the directories above them: a difference that
// the session does not know of is a stamp or a record that lies, and is seldom seen twice.
func (s *session) evidence(found []compare.Difference) {
	s.t.Helper()
	seen := map[string]bool{}
	for _, d := range found[:min(len(found), 20)] {
		for path := d.Path; ; path = filepath.Dir(path) {
			if !seen[path] {
				seen[path] = true
				s.t.Logf("%s\n  master %s\n  slave  %s", compare.Quote(path), onRecord(s.master, path), onRecord(s.slave, path))
			}
			if path == "." || path == "" || path == "/" {
				break
			}
		}
	}
	parked, _ := os.ReadDir(filepath.Join(s.slave, ".georep", "parked"))
	for _, e := range parked {
		s.t.Logf("parked: %s %s", e.Name(), onRecord(s.slave, filepath.Join(".georep", "parked", e.Name())))
	}
}

// onRecord describes an entry by its times and the xattrs that are georep's.
func onRecord(top, path string) string {
	path = filepath.Join(top, path)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err.Error()
	}
	text := fmt.Sprintf("inode %d, %d names, %d bytes, ctime %d.%09d", st.Ino, st.Nlink, st.Size, st.Ctim.Sec, st.Ctim.Nsec)
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return text + ", xattrs: " + err.Error()
	}
	for _, name := range bytes.Split(list[:n], []byte{0}) {
		if name := string(name); strings.Contains(name, "georep") || strings.Contains(name, "glusterfs") {
			value := make([]byte, 256)
			k, err := unix.Lgetxattr(path, name, value)
			text += fmt.Sprintf(", %s=%x", name, value[:max(k, 0)])
			if err != nil {
				text += err.Error()
			}
		}
	}
	return text
}
