package logs

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/natefinch/lumberjack.v2"
)

// shown is what Show says without following.
func shown(t *testing.T, path string, n int) (lines []string) {
	t.Helper()
	if err := Show(t.Context(), path, n, false, func(b []byte) error { lines = append(lines, string(b)); return nil }); err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestLastLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if got := shown(t, path, 5); len(got) != 0 {
		t.Errorf("no log: %q", got)
	}
	for name, text := range map[string]string{
		"log-2026-01-01T00-00-00.000": "1\n2\n", "log-2026-01-02T00-00-00.000": "3\n4\n", "log": "5\n\n6\n7 is cut",
	} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for n, want := range map[int]string{0: "", 1: "6 7 is cut", 2: "5 6 7 is cut", 4: "3 4 5 6 7 is cut", math.MaxInt: "1 2 3 4 5 6 7 is cut", 100: "1 2 3 4 5 6 7 is cut"} {
		// What has no end yet is a line more.
		if got := strings.Join(shown(t, path, n), " "); got != want && n > 0 {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	long := bytes.Repeat([]byte("x"), 3*maxLine)
	if err := os.WriteFile(path, long, 0o600); err != nil {
		t.Fatal(err)
	}
	if n := len(strings.Join(shown(t, path, 10), "")); n < 3*maxLine {
		t.Errorf("%d bytes of a line of %d", n, len(long))
	}
}

// TestFollow: over rotations, of which there is more than one, every line comes once, in order.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, done := make(chan string), make(chan error)
	go func() {
		done <- Show(ctx, path, 10, true, func(b []byte) error { got <- string(b); return nil })
	}()
	w := &lumberjack.Logger{Filename: path, MaxSize: 1}
	defer w.Close()
	for i := range 9 {
		text := fmt.Sprint("line ", i)
		if i%3 == 2 {
			if err := w.Rotate(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Write([]byte(text + "\n")); err != nil {
			t.Fatal(err)
		}
		if line := <-got; line != text {
			t.Fatalf("%q, want %q", line, text)
		}
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("cut\n"); err != nil {
		t.Fatal(err)
	}
	if line := <-got; line != "cut" {
		t.Errorf("%q after it was cut", line)
	}
	f.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
