package crawler_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestHolesAreNotRead: what a change of a sparse file costs follows its data, whatever changed: no end reads the holes, to
// compare, to sign or to send them.
func TestHolesAreNotRead(t *testing.T) {
	const size, at, most = 1 << 30, 600<<20 + 999, 32 << 20
	for kind, overSFTP := range map[string]bool{"disk": false, "sftp": true} {
		for _, beside := range []bool{false, true} {
			t.Run(fmt.Sprint(kind, " beside ", beside), func(t *testing.T) {
				w := inMemory(t, false)
				if overSFTP {
					w.connectSFTP()
				}
				if beside {
					defer w.crawler.Beside(t.Context())()
				}
				step := func(what string, change func()) {
					before := bytesRead(t)
					change()
					w.mark("d/f")
					for out := w.pass(); out.Stime == 0 || out.Waiting; out = w.pass() {
						time.Sleep(time.Millisecond) // as long as it takes beside the crawls
					}
					if n := bytesRead(t) - before; n > most {
						t.Errorf("%s: %d bytes were read", what, n)
					}
					w.sameSparse("d/f", at)
				}
				step("first", func() { w.write("d/f", "begin"); w.ok(os.Truncate(w.at("d/f"), size)); w.writeAt("d/f", "data", at) })
				step("mode", func() { w.ok(os.Chmod(w.at("d/f"), 0o600)) })
				step("content", func() { w.writeAt("d/f", "DATA", at) })
				step("another file", func() {
					w.write("new", "begin")
					w.ok(os.Truncate(w.at("new"), size))
					w.writeAt("new", "Data", at)
					w.ok(os.Rename(w.at("new"), w.at("d/f")))
				})
			})
		}
	}
}

func (w *world) writeAt(path, text string, at int64) {
	w.t.Helper()
	f, err := os.OpenFile(w.at(path), os.O_WRONLY, 0)
	w.ok(err)
	_, err = f.WriteAt([]byte(text), at)
	w.ok(errors.Join(err, f.Close()))
}

// sameSparse compares a sparse file with data at its begin and at an offset.
func (w *world) sameSparse(path string, at int64) {
	w.t.Helper()
	here, there := w.sparse(w.at(path), at), w.sparse(w.there(path), at)
	if here != there {
		w.t.Fatalf("%s on the master, %s on the slave", here, there)
	}
}

func (w *world) sparse(path string, at int64) string {
	w.t.Helper()
	f, err := os.Open(path)
	w.ok(err)
	defer f.Close()
	var st syscall.Stat_t
	w.ok(syscall.Fstat(int(f.Fd()), &st))
	if st.Blocks*512 > 16<<20 {
		w.t.Errorf("%s has no holes: %d blocks", path, st.Blocks)
	}
	var begin, middle [8]byte
	_, err = f.ReadAt(begin[:], 0)
	w.ok(err)
	_, err = f.ReadAt(middle[:], at-2)
	w.ok(err)
	return fmt.Sprintf("%d %o %q %q", st.Size, st.Mode, begin, middle)
}

// bytesRead is how much this process has read so far.
func bytesRead(t *testing.T) (n int64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanf(bytes.NewReader(text), "rchar: %d", &n); err != nil {
		t.Fatal(err, strings.TrimSpace(string(text)))
	}
	return n
}
