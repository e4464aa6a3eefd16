package beneath

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFsetxattr holds fsetxattr against what x/sys does, for names and values of every odd length.
func TestFsetxattr(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	long := "user." + strings.Repeat("n", 250)
	for _, attr := range []string{"", "user.", "user.a", "user.a\x00b", "nonsense.a", long, long + "n", long + strings.Repeat("n", 1000)} {
		for _, value := range [][]byte{nil, {}, []byte("v"), []byte(strings.Repeat("v", 1000)), make([]byte, 70_000)} {
			want := unix.Fsetxattr(fd, attr, value, 0)
			if want == nil {
				if err := unix.Fremovexattr(fd, attr); err != nil {
					t.Fatal(err)
				}
			}
			if got := fsetxattr(fd, attr, value); !errors.Is(got, want) {
				t.Errorf("%q, %d bytes: %v, want %v", attr, len(value), got, want)
			}
			buf := make([]byte, 80_000)
			if n, err := unix.Fgetxattr(fd, attr, buf); want == nil && (err != nil || string(buf[:n]) != string(value)) {
				t.Errorf("%q has %d bytes (%v), want %d", attr, n, err, len(value))
			}
		}
	}
}

// TestSetxattrMakesNoGarbage counts what a call leaves to the collector.
func TestSetxattrMakesNoGarbage(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	value, attr := []byte("value"), "user."+strings.Repeat("n", 60)
	if err := fsetxattr(int(f.Fd()), attr, value); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = fsetxattr(int(f.Fd()), attr, value) }); n != 0 {
		t.Errorf("%v allocations a call, want 0", n)
	}
}
