package writers

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkLook is what a look costs the processor while others work or sleep; beside what runs anyway there are 200
// processes that do nothing.
func BenchmarkLook(b *testing.B) {
	for range 200 {
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	var st unix.Stat_t
	if err := unix.Stat(os.TempDir(), &st); err != nil {
		b.Fatal(err)
	}
	f := New(Volume{Dev: st.Dev, Super: st.Dev})
	looks := func() int {
		n := 0
		for b.Loop() {
			b.StopTimer()
			time.Sleep(100 * time.Millisecond)
			before := used()
			if _, _, err := f.Look(false); err != nil {
				b.Fatal(err)
			}
			if n++; n > 1 {
				total += used() - before
			}
			b.StartTimer()
		}
		return n
	}
	n := looks()
	b.ReportMetric(float64(total.Microseconds())/float64(max(n-1, 1)), "cpu-µs/look")
	b.ReportMetric(float64(f.examined)/float64(n), "examined/look")
}

var total time.Duration

func used() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// TestLook finds a file that a process holds for writing, as long as it does, and none that it only reads.
func TestLook(t *testing.T) {
	dir := t.TempDir()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "exec 7>>written 8<written; echo ready; read wait; exec 7>&-; echo closed; read wait")
	cmd.Dir = dir
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	f := New(Volume{Dev: st.Dev, Super: st.Dev})
	held := func() (links []string) {
		files, _, err := f.Look(false)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range files {
			if path, err := os.Readlink(one.Link); err == nil && path == filepath.Join(dir, "written") {
				links = append(links, filepath.Base(one.Link))
			}
		}
		return links
	}
	said := bufio.NewScanner(out)
	said.Scan()
	for range 2 { // the second time it is remembered
		if got := held(); !slices.Equal(got, []string{"7"}) {
			t.Errorf("held for writing by descriptors %q", got)
		}
	}
	fmt.Fprintln(in)
	said.Scan()
	if got := held(); len(got) > 0 {
		t.Errorf("held for writing by descriptors %q after they were closed", got)
	}
}

// TestMappings: the text of a kernel that cannot be asked says the same as the answers of one that can.
func TestMappings(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "two\nlines"))
	if err == nil {
		err = file.Truncate(4096)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, flags := range []int{unix.MAP_SHARED, unix.MAP_PRIVATE} {
		b, err := unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, flags)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(b)
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	var text, asked []mapping
	err = readMaps(bufio.NewScanner(maps), func(m *mapping) { text = append(text, *m) })
	if err == nil {
		err = New(Volume{}).queryMaps(int(maps.Fd()), func(m *mapping) { asked = append(asked, *m) })
	}
	if err != nil && !errors.Is(err, unix.ENOTTY) {
		t.Fatal(err)
	}
	if len(text) != 1 || text[0].path != file.Name() || err == nil && !slices.Equal(text, asked) {
		t.Errorf("the text says %+v, the kernel %+v; want %q once", text, asked, file.Name())
	}
}
