package events

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string, floor uint64) *Journal {
	t.Helper()
	j, _, err := Open(dir, floor)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func read(t *testing.T, dir string, since uint64) []Event {
	t.Helper()
	list, err := Read(dir, since)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func seqs(list []Event) (out []uint64) {
	for _, e := range list {
		out = append(out, e.Seq)
	}
	return out
}

func add(t *testing.T, j *Journal, n int) {
	t.Helper()
	for range n {
		if _, err := j.Append(Event{Kind: Failure, Message: strings.Repeat("x", 900)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEventsComeBack(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, 0)
	want, err := j.Append(Event{Kind: Failure, Master: "data", Slave: "h::copy", Path: "a\xff\n\"b", Op: "write",
		Error: "no space\nleft", Message: "held back"})
	if err != nil {
		t.Fatal(err)
	}
	if want.Error != "no space; left" || want.Seq != 1 || want.Time.IsZero() {
		t.Errorf("written: %+v", want)
	}
	got := read(t, dir, 0)
	if len(got) != 1 || !got[0].Time.Equal(want.Time) {
		t.Fatalf("read: %+v", got)
	}
	got[0].Time = want.Time
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("read %+v, wrote %+v", got[0], want)
	}
	if fi, err := os.Stat(filepath.Join(dir, current)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v, %v", fi.Mode(), err)
	}
	if list := read(t, t.TempDir(), 0); len(list) != 0 {
		t.Errorf("no journal has %v", list)
	}
}

// TestNumbersGoOn: over restarts, over files that turn over, and after a power cut took the end of the files.
func TestNumbersGoOn(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, 0)
	add(t, j, 3)
	j.Close()
	j, _, err := openOf(dir, 0, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	add(t, j, 300)
	if j.Last() != 303 {
		t.Errorf("last is %d", j.Last())
	}
	list := read(t, dir, 0)
	for i, s := range seqs(list) {
		if want := 303 - uint64(len(list)-1-i); s != want {
			t.Fatalf("event %d has number %d, not %d", i, s, want)
		}
	}
	if len(list) < 64<<10/1100 {
		t.Errorf("only %d events are kept", len(list))
	}
	for _, name := range []string{current, older} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Size() > 64<<10 {
			t.Errorf("%s: %v bytes, %v", name, fi.Size(), err)
		}
	}
	if got := seqs(read(t, dir, 301)); !reflect.DeepEqual(got, []uint64{302, 303}) {
		t.Errorf("after 301: %v", got)
	}
	j.Close()
	j = open(t, dir, 4000) // a hook was told of that one
	if e, err := j.Append(Event{Kind: Failure}); err != nil || e.Seq != 4001 {
		t.Errorf("after a power cut: %+v, %v", e, err)
	}
}

// TestAnyPrefixReads: whatever of the file a kill left, what is whole is read, and the next writer goes on behind it.
func TestAnyPrefixReads(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, 0)
	var ends []int
	for i := range 2 {
		if _, err := j.Append(Event{Kind: FailureGone, Path: "p\n\xfe" + fmt.Sprint(i), Message: "gone"}); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(filepath.Join(dir, current))
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int(fi.Size()))
	}
	whole, err := os.ReadFile(filepath.Join(dir, current))
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		want := 0
		for _, end := range ends {
			if end <= n {
				want++
			}
		}
		cut := t.TempDir()
		if err := os.WriteFile(filepath.Join(cut, current), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if got := len(read(t, cut, 0)); got != want {
			t.Fatalf("%d bytes: %d events, not %d", n, got, want)
		}
		next := open(t, cut, 0)
		e, err := next.Append(Event{Kind: FirstSync})
		if err != nil || e.Seq != uint64(want+1) {
			t.Fatalf("%d bytes: the next one is %+v, %v", n, e, err)
		}
		if got := len(read(t, cut, 0)); got != want+1 {
			t.Fatalf("%d bytes: %d events after the next one", n, got)
		}
		next.Close()
	}
}

// FuzzRead: whatever the file has in it, the numbers rise and the writer goes on.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"seq":1,"kind":"state"}`+"\n"), []byte(`{"seq":2,"kind":"state"}`+"\n{\x00"))
	f.Add([]byte("\n\n{}\n"), []byte(`{"seq":18446744073709551614,"kind":"x"}`+"\n"))
	f.Fuzz(func(t *testing.T, old, now []byte) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, older), old, 0o600)
		os.WriteFile(filepath.Join(dir, current), now, 0o600)
		var last uint64
		for _, e := range read(t, dir, 0) {
			if e.Seq <= last {
				t.Fatalf("%d follows %d", e.Seq, last)
			}
			last = e.Seq
		}
		j := open(t, dir, 0)
		if _, err := j.Append(Event{Kind: FirstSync, Message: "m"}); err != nil {
			t.Fatal(err)
		}
		list := read(t, dir, 0)
		if last+1 != 0 && (len(list) == 0 || list[len(list)-1].Seq != last+1) {
			t.Fatalf("%d comes after %d", seqs(list), last)
		}
	})
}

// TestFullDisk: an event that does not fit is an error, leaves no half line, and those after it are written.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("georep-events", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	j := open(t, dir, 0)
	add(t, j, 3)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); err == nil {
		t.Fatal("the disk does not get full")
	}
	failed := 0
	for range 8 { // one may still fit into the last page
		if _, err := j.Append(Event{Kind: Failure, Message: strings.Repeat("x", 1500)}); errors.Is(err, unix.ENOSPC) {
			failed++
		}
	}
	if failed == 0 {
		t.Fatal("nothing failed")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	j.Skip(5)
	add(t, j, 1)
	list := read(t, dir, 0)
	if n := len(list); n != 12-failed || list[n-1].Seq != uint64(n+5) || list[n-2].Seq != uint64(n-1) {
		t.Errorf("%d failed, 5 were skipped, and the journal has %v", failed, seqs(list))
	}
	data, err := os.ReadFile(filepath.Join(dir, current))
	if err != nil || strings.Count(string(data), "\n") != len(list) {
		t.Errorf("half lines are left: %v", err)
	}
}

// TestFollow: a follower meets every event once, over files that turn over while it reads, or is told how many it missed.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	const all = 600
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var seen, lost uint64
	var wg sync.WaitGroup
	wg.Go(func() {
		next := uint64(1)
		err := Follow(ctx, dir, 0, func(e Event, missed uint64) error {
			if e.Seq != next+missed && seen > 0 {
				return fmt.Errorf("event %d, %d missed, after %d", e.Seq, missed, next-1)
			}
			if seen == 0 {
				missed = e.Seq - 1
			}
			seen, lost, next = seen+1, lost+missed, e.Seq+1
			if e.Seq == all {
				cancel()
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	j, _, err := openOf(dir, 0, 32<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	add(t, j, all)
	wg.Wait()
	if seen+lost != all || seen == 0 {
		t.Errorf("%d seen and %d lost of %d", seen, lost, all)
	}
	stop := errors.New("stop")
	if err := Follow(context.Background(), dir, all-1, func(Event, uint64) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the callback's error is %v", err)
	}
}

// TestInodeIsUsedAgain: files that turned over twice while a follower was busy may have the number of the one that it read. What is
// there is told all the same.
func TestInodeIsUsedAgain(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, 0)
	add(t, j, 2)
	f := follower{dir: dir}
	for range 2 { // the second look knows how far it has read
		list, err := f.news()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			f.since, f.any = e.Seq, true
		}
		if err := os.Chtimes(filepath.Join(dir, current), time.Time{}, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := t.TempDir()
	later := open(t, elsewhere, 2)
	add(t, later, 5)
	text, err := os.ReadFile(filepath.Join(elsewhere, current))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, current), text, 0o600); err != nil { // the same inode, with other lines
		t.Fatal(err)
	}
	list, err := f.news()
	if got := seqs(list); err != nil || !reflect.DeepEqual(got, []uint64{3, 4, 5, 6, 7}) {
		t.Errorf("%v, %v", got, err)
	}
}
