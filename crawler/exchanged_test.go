package crawler_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExchangedWhileRead: a user who owns a directory exchanges the names of a file of root's and one of his own, before each
// call of a crawl on the master in turn. Root's content never comes to have his owner, mode or xattrs on the slave.
func TestExchangedWhileRead(t *testing.T) {
	for _, hints := range []bool{false, true} {
		for _, back := range []int64{0, 1, 2, 3, 5} {
			for n := int64(1); exchangedWhileRead(t, n, back, hints) >= n; n++ {
			}
		}
	}
}

// exchangedWhileRead exchanges them before the n-th call, and once more so many calls after it. It tells how many calls the crawl made.
func exchangedWhileRead(t *testing.T, n, back int64, hints bool) int64 {
	t.Helper()
	w := hintedWorld(t, func(w *world) {
		w.write("home/a", "secret")
		w.write("home/b", "his")
		w.ok(os.Chmod(w.at("home/a"), 0o600))
		w.ok(os.Chown(w.at("home/b"), 1234, 1234))
		w.ok(unix.Setxattr(w.at("home/b"), "user.his", []byte("his"), 0))
	})
	w.ok(os.WriteFile(w.at("home/a"), []byte("secret, too"), 0o600))
	w.ok(os.WriteFile(w.at("home/b"), []byte("his as well"), 0o644))
	if told := w.hint("home/a", "home/b"); hints {
		w.hints.Hint(told)
	}
	var calls atomic.Int64
	w.root.Hook(func(_, _ string) error {
		if at := calls.Add(1); at == n || back > 0 && at == n+back {
			return unix.Renameat2(unix.AT_FDCWD, w.at("home/a"), unix.AT_FDCWD, w.at("home/b"), unix.RENAME_EXCHANGE)
		}
		return nil
	})
	w.pass()
	w.root.Hook(nil)
	for _, name := range []string{"home/a", "home/b"} {
		path := filepath.Join(w.slave, name)
		b, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(b), "secret") {
			continue
		}
		var st unix.Stat_t
		w.ok(unix.Lstat(path, &st))
		if _, err := unix.Getxattr(path, "user.his", make([]byte, 8)); st.Uid != 0 || st.Mode&0o7777 != 0o600 || !errors.Is(err, unix.ENODATA) {
			t.Errorf("before call %d and %d later, hints %v: root's content in %s has mode %o, owner %d, his xattr: %v", n, back, hints, name, st.Mode&0o7777, st.Uid, err)
		}
	}
	return calls.Load()
}
