package monitor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// TestLogIsBounded writes what a worker says that cannot start for days, and lines without end: the files of the log stay
// within their bound, and the latest line is there.
func TestLogIsBounded(t *testing.T) {
	dir := t.TempDir()
	sink, file := newLogOf(filepath.Join(dir, "log"), nil, 1)
	defer file.Close()
	s := &stderrLog{log: zerolog.New(sink), sink: sink}
	line := `{"level":"error","message":"start","error":"` + strings.Repeat("host unreachable ", 50) + `"}` + "\n"
	s.read(strings.NewReader(strings.Repeat(line, (7<<20)/len(line))))
	s.read(strings.NewReader(strings.Repeat("no end ", 500<<10/7)))
	s.read(strings.NewReader(`{"level":"error","message":"the last one"}` + "\n"))
	text, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil || !strings.HasSuffix(string(text), `"the last one"}`+"\n") {
		t.Errorf("the latest line is not in the log: %v", err)
	}
	most := int64((logBackups + 1) << 20)
	for deadline := time.Now().Add(time.Minute); sizeOf(t, dir) > most; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes of logs, want at most %d", sizeOf(t, dir), most)
		}
	}
	if sizeOf(t, dir) < 1<<20 {
		t.Error("the log is not kept")
	}
}

func sizeOf(t *testing.T, dir string) (n int64) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}
