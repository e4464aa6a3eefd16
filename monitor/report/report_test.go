package report

import (
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"georep/status"
)

func readAll(t *testing.T, r io.Reader) []Report {
	t.Helper()
	var list []Report
	for d := NewDecoder(r); ; {
		rep, err := d.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rep)
	}
}

func TestWriterRoundTrip(t *testing.T) {
	var buf bytes.Buffer
	w := NewWriter(&buf)
	p := Progress{
		Crawl: status.HybridCrawl, Stime: 1<<64 - 1, LastSynced: status.Time{Time: time.Unix(5, 0).UTC()}, LagSeconds: 1.5,
		Pending: status.Pending{Entries: 1, Files: 2, Bytes: 3}, Synced: status.Synced{Files: 4}, FailuresTotal: 7, Marker: "scan",
		Failures: []status.Failure{{Path: "a\xff\nb", Op: "write", Error: "no", Since: status.Time{Time: time.Unix(6, 0).UTC()}}},
	}
	w.Progress(Progress{})
	w.Progress(p)
	if err := errors.Join(w.Ready(), w.Faulty(Fault{Reason: "a\nb\n", Final: true}), w.Ready()); err != nil {
		t.Fatal(err)
	}
	want := []Report{{Kind: KindProgress, Progress: &p}, {Kind: Ready},
		{Kind: KindFaulty, Fault: &Fault{Reason: "a; b", Final: true}}, {Kind: Ready}}
	if got := readAll(t, &buf); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestWriterBounds(t *testing.T) {
	var buf bytes.Buffer
	w := NewWriter(&buf)
	var p Progress
	for range 500 {
		p.Failures = append(p.Failures, status.Failure{Path: strings.Repeat("\x01", 10_000)})
	}
	w.Progress(p)
	if err := w.Ready(); err != nil {
		t.Fatal(err)
	}
	got := readAll(t, &buf)
	if len(got) != 2 || got[0].Progress.FailuresTotal != 500 || len(got[0].Progress.Failures) == 0 {
		t.Errorf("got %d reports, total %d", len(got), got[0].Progress.FailuresTotal)
	}
}

func TestWriterRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		w := NewWriter(&buf)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		for i := range 1000 {
			w.Progress(Progress{Stime: uint64(i)})
			time.Sleep(time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		w.Progress(Progress{Stime: 5000})
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		counts := map[Kind]int{}
		list := readAll(t, &buf)
		for _, r := range list {
			counts[r.Kind]++
		}
		if counts[KindProgress] < 4 || counts[KindProgress] > 6 || counts[Alive] < 9 || counts[Alive] > 10 {
			t.Errorf("%v in 11 s, of which progress was made in one", counts)
		}
		if last := list[len(list)-1]; last.Progress == nil || last.Progress.Stime != 5000 {
			t.Errorf("the last report is %+v", last)
		}
	})
}

// TestWriterNews: news is written at once, whenever the last report was.
func TestWriterNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		w := NewWriter(&buf)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		w.Progress(Progress{Stime: 1})
		synctest.Wait()
		if buf.Len() > 0 {
			t.Error("what is no news was written at once")
		}
		w.News(Progress{Stime: 2})
		synctest.Wait()
		if list := readAll(t, &buf); len(list) != 1 || list[0].Progress.Stime != 2 {
			t.Errorf("written: %+v", list)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWriterMonitorGone(t *testing.T) {
	r, out := io.Pipe()
	r.Close()
	w := NewWriter(out)
	if err := w.Ready(); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("ready: %v", err)
	}
	if err := w.Run(t.Context()); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("run: %v", err)
	}
}

func TestWriterConcurrent(t *testing.T) {
	var buf bytes.Buffer
	w := NewWriter(&buf)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				w.Progress(Progress{})
				if err := w.Ready(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	ready := 0
	for _, r := range readAll(t, &buf) {
		if r.Kind == Ready {
			ready++
		}
	}
	if ready != 400 {
		t.Errorf("%d of 400", ready)
	}
}

func TestDecoderGoesOn(t *testing.T) {
	in := "x\n" + `{"kind":"progress"}` + "\n" + `{"kind":"faulty"}` + "\n" + `{"kind":"new"}` + "\n" +
		strings.Repeat("y", maxLine+1) + "\n" + `{"kind":"alive"}`
	d := NewDecoder(strings.NewReader(in))
	for i := range 5 {
		if _, err := d.Next(); !errors.Is(err, ErrMalformed) {
			t.Errorf("line %d: %v", i, err)
		}
	}
	if r, err := d.Next(); err != nil || r.Kind != Alive {
		t.Errorf("the last: %+v, %v", r, err)
	}
	if _, err := d.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
}

func TestCommands(t *testing.T) {
	var buf bytes.Buffer
	for _, v := range []Verb{Pause, Resume, Stop} {
		if err := WriteCommand(&buf, Command{v}); err != nil {
			t.Fatal(err)
		}
		buf.WriteString("not json\n" + strings.Repeat("z", maxLine+1) + "\n")
	}
	var got []Verb
	if err := ReadCommands(&buf, func(c Command) { got = append(got, c.Verb) }); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, []Verb{Pause, Resume, Stop}) {
		t.Errorf("got %v", got)
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte(`{"kind":"ready"}` + "\n" + `{"kind":"alive"}`))
	f.Add([]byte(`{"kind":"faulty","fault":{"reason":"x","final":true}}`))
	f.Add([]byte(`{"kind":"progress","progress":{"failures":[{"path":"a","path_bytes":"/w=="}],"last_synced":""}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := NewDecoder(bytes.NewReader(data))
		for range len(data) + 1 {
			r, err := d.Next()
			switch {
			case errors.Is(err, io.EOF):
				return
			case errors.Is(err, ErrMalformed):
				continue
			case err != nil:
				t.Fatal(err)
			}
			if (r.Kind == KindProgress && r.Progress == nil) || (r.Kind == KindFaulty && r.Fault == nil) {
				t.Fatalf("accepted %+v", r)
			}
		}
		t.Fatal("no end")
	})
}

// TestNextCopiesNoLine: a line that fits into the reader's buffer is decoded where it is.
func TestNextCopiesNoLine(t *testing.T) {
	const size, count = 32 << 10, 100
	line := `{"kind":"alive"` + strings.Repeat(" ", size) + "}\n"
	d := NewDecoder(strings.NewReader(strings.Repeat(line, count)))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range count {
		if r, err := d.Next(); err != nil || r.Kind != Alive {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / count; each > size/2 {
		t.Errorf("%d bytes are allocated for a line of %d", each, len(line))
	}
}
