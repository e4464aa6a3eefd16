package source

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/slave"
)

// TestDigestOfWhatTookItsPlace: what was listed as a file may be a device or a FIFO once it is opened. Its content has no end,
// or is not there to be read: nothing of it is.
func TestDigestOfWhatTookItsPlace(t *testing.T) {
	enough := errors.New("it is read")
	for name, mode := range map[string]struct {
		mode uint32
		dev  uint64
	}{
		"null": {unix.S_IFCHR, unix.Mkdev(1, 3)},
		"zero": {unix.S_IFCHR, unix.Mkdev(1, 5)},
		"fifo": {unix.S_IFIFO, 0},
		"file": {unix.S_IFREG, 0},
	} {
		for shape, blocks := range map[string]uint64{"sparse": 0, "full": 4 << 20 / 512} {
			t.Run(name+" "+shape, func(t *testing.T) {
				dir := t.TempDir()
				if err := unix.Mknod(filepath.Join(dir, "f"), mode.mode|0o600, int(mode.dev)); err != nil {
					t.Fatal(err)
				}
				if mode.mode == unix.S_IFIFO { // somebody writes
					w, err := os.OpenFile(filepath.Join(dir, "f"), os.O_RDWR, 0)
					if err == nil {
						defer w.Close()
						_, err = w.WriteString("not for us")
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				root, err := beneath.OpenRoot(dir, true)
				if err != nil {
					t.Fatal(err)
				}
				defer root.Close()
				listed := plan.Entry{Name: "f", Kind: slave.File}
				listed.Stat = beneath.Stat{Mode: unix.S_IFREG | 0o600, Size: 4 << 20, Ino: 1 << 40, Blocks: blocks}
				done := make(chan slave.HashResult, 2)
				read := 0
				live := func() error {
					if read++; read > 10 {
						return enough
					}
					return nil
				}
				go func() {
					m, err := NewLocal(&Config{Root: root})
					if err != nil {
						done <- slave.HashResult{Err: err}
						return
					}
					f, err := m.OpenFile(root, &listed)
					if err == nil {
						done <- f.Digest(live)
						f.Close()
					} else {
						done <- slave.HashResult{Err: err}
					}
					done <- m.Digest("f", nil, live)
				}()
				for _, of := range []string{"a crawl", "a comparison"} {
					select {
					case res := <-done:
						want := slave.ErrConflict
						switch {
						case of == "a crawl":
							want = ErrMoved
						case mode.mode == unix.S_IFREG:
							want = nil
						}
						if !errors.Is(res.Err, want) {
							t.Errorf("%s: %v, want %v", of, res.Err, want)
						}
					case <-time.After(time.Minute):
						t.Fatalf("%s does not end", of)
					}
				}
				if read > 1 {
					t.Errorf("%d pieces were read", read)
				}
			})
		}
	}
}
