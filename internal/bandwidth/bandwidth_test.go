package bandwidth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// record keeps what was written, and when. It fails at one of the writes if err is set.
type record struct {
	bytes.Buffer
	sizes []int
	times []time.Time
	left  int
	part  int
	err   error
}

func (r *record) Write(p []byte) (int, error) {
	r.sizes, r.times = append(r.sizes, len(p)), append(r.times, time.Now())
	if r.err != nil {
		if r.left--; r.left < 0 {
			n, _ := r.Buffer.Write(p[:min(r.part, len(p)-1)])
			if errors.Is(r.err, io.ErrShortWrite) {
				return n, nil
			}
			return n, r.err
		}
	}
	return r.Buffer.Write(p)
}

func data(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8)
	}
	return b
}

// TestRate looks at every span of a transfer: in none there is more than the limit, a piece and the slack allow, and
// the whole takes no longer than it must. The time is synctest's.
func TestRate(t *testing.T) {
	for _, rate := range []int64{Least, 10_000, 1 << 20, 100 << 20} {
		t.Run(Format(rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var below record
				want := data(int(rate) / 2)
				began := time.Now()
				n, err := NewLimit(t.Context(), rate).Writer(&below).Write(want)
				if n != len(want) || err != nil || !bytes.Equal(below.Bytes(), want) {
					t.Fatal(n, err)
				}
				most := float64(slices.Max(below.sizes)) + slack.Seconds()*float64(rate)
				if slices.Max(below.sizes) > mostPiece || most > 0.3*float64(rate) {
					t.Errorf("a piece of %d bytes", slices.Max(below.sizes))
				}
				for i := range min(100, len(below.times)) {
					sum := 0
					for j := i; j < len(below.times); j++ {
						sum += below.sizes[j]
						span := below.times[j].Sub(below.times[i])
						if float64(sum) > span.Seconds()*float64(rate)+most+1 {
							t.Fatalf("%d bytes in %v", sum, span)
						}
					}
				}
				if took := time.Since(began); took > time.Second/2 || took < time.Second/5 {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// TestNoLimit passes everything on at once and in one piece.
func TestNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, rate := range []int64{0, -1} {
			var below record
			began, want := time.Now(), data(10<<20)
			if n, err := NewLimit(t.Context(), rate).Writer(&below).Write(want); n != len(want) || err != nil {
				t.Fatal(n, err)
			}
			if len(below.sizes) != 1 || time.Since(began) != 0 {
				t.Errorf("%d writes, %v", len(below.sizes), time.Since(began))
			}
		}
	})
}

// TestIdleTimeIsNotSaved waits for long and then may not write more than the slack allows.
func TestIdleTimeIsNotSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var below record
		w := NewLimit(t.Context(), 1<<20).Writer(&below)
		<-time.After(time.Hour)
		began := time.Now()
		if _, err := w.Write(data(1 << 20)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 900*time.Millisecond || took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestFair lets writers of very different appetite share a limit: while all have something to write each gets the same.
func TestFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		limit := NewLimit(ctx, 1<<20)
		got := make([]record, 5)
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() {
				w := limit.Writer(&got[i])
				for chunk := data(16 << (10 + 2*i)); ; {
					if _, err := w.Write(chunk); err != nil {
						return
					}
				}
			})
		}
		<-time.After(10 * time.Second)
		cancel()
		wg.Wait()
		total := 0
		for i := range got {
			total += got[i].Len()
			if share := float64(got[i].Len()) / (2 << 20); share < 0.9 || share > 1.1 {
				t.Errorf("writer %d got %.2f of its share", i, share)
			}
		}
		if total > 11<<20 || total < 9<<20 {
			t.Errorf("%d bytes in 10 s at 1 MiB/s", total)
		}
	})
}

var errOver = errors.New("the session is over")

// TestEnd ends the context while writers wait, and then writes again.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		limit := NewLimit(ctx, Least)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				var below record
				w := limit.Writer(&below)
				if n, err := w.Write(data(1 << 20)); !errors.Is(err, errOver) || n != below.Len() || n == 1<<20 {
					t.Errorf("%d bytes of %d, %v", n, below.Len(), err)
				}
				wrote := below.Len()
				if n, err := w.Write(data(1)); !errors.Is(err, errOver) || n != 0 || below.Len() != wrote {
					t.Errorf("afterwards: %d, %v", n, err)
				}
			})
		}
		<-time.After(10 * time.Second)
		ended := time.Now()
		cancel(errOver)
		wg.Wait()
		if time.Since(ended) != 0 {
			t.Errorf("the writes ended after %v", time.Since(ended))
		}
	})
}

// TestSetLimit changes the rate in the middle of one write.
func TestSetLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var below record
		limit := NewLimit(t.Context(), Least)
		ended := make(chan time.Duration, 1)
		began := time.Now()
		go func() {
			if _, err := limit.Writer(&below).Write(data(4 << 20)); err != nil {
				t.Error(err)
			}
			ended <- time.Since(began)
		}()
		<-time.After(10 * time.Second)
		limit.SetLimit(1 << 20)
		<-time.After(2 * time.Second)
		limit.SetLimit(0)
		if took := <-ended; took < 12*time.Second || took > 12*time.Second+pieceTime {
			t.Errorf("took %v", took)
		}
		at := func(d time.Duration) (sum int) {
			for i, size := range below.sizes {
				if below.times[i].Sub(began) <= d {
					sum += size
				}
			}
			return sum
		}
		if n := at(10 * time.Second); n > 11<<10 || n < 9<<10 {
			t.Errorf("%d bytes in the slow 10 s", n)
		}
		if n := at(12*time.Second-1) - at(10*time.Second); n > 21<<17 || n < 12<<17 {
			t.Errorf("%d bytes in the 2 s of 1 MiB/s", n)
		}
	})
}

// TestEnded writes where the context has ended before, with and without a limit.
func TestEnded(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errOver)
	for _, rate := range []int64{0, Least, Most} {
		var below record
		n, err := NewLimit(ctx, rate).Writer(&below).Write(data(10))
		if n != 0 || !errors.Is(err, errOver) || len(below.sizes) > 0 {
			t.Errorf("limit %d: %d, %v", rate, n, err)
		}
	}
}

var errBroken = errors.New("broken")

// TestErrors fails the first, second, third ... write below.
func TestErrors(t *testing.T) {
	want := data(10 * mostPiece)
	for _, rate := range []int64{0, Most} {
		for _, broken := range []error{errBroken, io.ErrShortWrite} {
			for nth := 0; ; nth++ {
				below := record{left: nth, part: 100, err: broken}
				n, err := NewLimit(t.Context(), rate).Writer(&below).Write(want)
				if err == nil {
					if nth != len(below.sizes) || n != len(want) {
						t.Errorf("%d bytes in %d writes", n, nth)
					}
					break
				}
				if !errors.Is(err, broken) || n != below.Len() || !bytes.Equal(below.Bytes(), want[:n]) {
					t.Fatalf("write %d: %d bytes of %d, %v", nth, n, below.Len(), err)
				}
			}
		}
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "0K": 0, "0.0": 0, "1024": 1024, "500K": 500 << 10, "500k": 500 << 10, "500KiB": 500 << 10,
		"500kb": 500_000, "1.5M": 3 << 19, "10MiB": 10 << 20, "10MB": 10_000_000, "1g": 1 << 30,
		"2GB": 2_000_000_000, "0.5G": 1 << 29,
		"1500B": 1500, ".5m": 1 << 19, "5.M": 5 << 20, "1.0001K": 1024, "1024G": Most, "1T": Most, "off": 0,
	} {
		if got, err := Parse(s); got != want || err != nil {
			t.Errorf("Parse(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "K", ".", "-1", "-1M", "+1M", "1e6", "0x10", "inf", "nan", "1.2.3M", "1 M", " 1M",
		"1M ", "2T", "1Mbit", "1MK", "1M/s", "1_000K", "1,5M", "١K", "500", "1", "0.5K", "1025G", "9999999999999999G",
		"1" + string(bytes.Repeat([]byte("0"), 400)), "1\x00M"} {
		if got, err := Parse(s); err == nil || got != 0 || err.Error() == "" {
			t.Errorf("Parse(%.20q) = %d, %v", s, got, err)
		}
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{
		-5: "0", 0: "0", Least: "1K", 500 << 10: "500K", 3 << 19: "1.5M", 10 << 20: "10M", 10_000_000: "10MB",
		1 << 30: "1G", 1500: "1500", 12_500_000: "12.5MB", 1_000_001: "1000001", Most: "1T",
	} {
		if got := Format(n); got != want {
			t.Errorf("Format(%d) = %q, want %q", n, got, want)
		}
	}
}

// FuzzParse holds Format to be the inverse of Parse, and Parse to its bounds.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"0", "500K", "1.5M", "10MiB", "1.537G", "1025", "x", "12.345678MB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err != nil {
			if n != 0 {
				t.Fatal(n, err)
			}
			return
		}
		if n != 0 && (n < Least || n > Most) {
			t.Fatalf("Parse(%q) = %d", s, n)
		}
		if back, err := Parse(Format(n)); back != n || err != nil {
			t.Fatal(fmt.Errorf("%q is %d, shown as %q, which is %d, %w", s, n, Format(n), back, err))
		}
	})
}
