package private

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestListen: nobody else may connect, whatever the umask; and what others of this process make meanwhile has the mode that they want.
func TestListen(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	dir := t.TempDir()
	stop, done := make(chan struct{}), make(chan os.FileMode)
	go others(dir, stop, done)
	path := filepath.Join(dir, "s")
	for range 300 {
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode() != os.ModeSocket|0o600 {
			t.Fatalf("%v, %v", st.Mode(), err)
		}
		l.Close()
	}
	close(stop)
	if mode := <-done; mode != 0 {
		t.Errorf("a directory of others has the mode %v", mode)
	}
}

// others makes directories until stop, and gives the mode of one that has not the one that was asked for.
func others(dir string, stop <-chan struct{}, done chan<- os.FileMode) {
	wrong := os.FileMode(0)
	for i := 0; ; i++ {
		select {
		case <-stop:
			done <- wrong
			return
		default:
		}
		name := filepath.Join(dir, strconv.Itoa(i%2))
		os.Mkdir(name, 0o700)
		if st, err := os.Stat(name); err == nil && st.Mode().Perm() != 0o700 {
			wrong = st.Mode()
		}
		os.Remove(name)
	}
}
