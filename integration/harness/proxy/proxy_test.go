package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// echo is a server that sends back what it gets until the end of the client's data.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		done.Wait()
	})
	return listener.Addr().String()
}

// start runs a proxy before target for the time of the test and checks that it leaves no goroutine.
func start(t *testing.T, target string, opts Options) *Proxy {
	t.Helper()
	p, err := New(target, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		stacks := make([]byte, 1<<20)
		if s := string(stacks[:runtime.Stack(stacks, true)]); strings.Contains(s, "proxy.(*Proxy).serve") {
			t.Errorf("a goroutine is left:\n%s", s)
		}
	})
	return p
}

func dial(t *testing.T, p *Proxy) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// say sends text and wants it back.
func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q back, want %q (%v)", got, text, err)
	}
}

// wantReset reads until the connection ends and wants that to be a reset.
func wantReset(t *testing.T, c net.Conn) (before int64) {
	t.Helper()
	before, err := io.Copy(io.Discard, c)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("connection ended with %v, want a reset", err)
	}
	return before
}

// wantRefused connects and wants a reset, which may come before or after the connection is seen as made.
func wantRefused(t *testing.T, p *Proxy) {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err == nil {
		defer c.Close()
		wantReset(t, c)
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
}

func TestForwardsBothWaysAndCounts(t *testing.T) {
	for name, opts := range map[string]Options{
		"plain": {}, "delay": {Delay: time.Millisecond}, "rate": {Rate: 1 << 30}, "small window": {Window: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, echo(t), opts)
			data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			c := dial(t, p)
			go func() {
				c.Write(data)
				c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("got %d bytes back (%v), sent %d", len(got), err, len(data))
			}
			say(t, dial(t, p), "second")
			want := int64(len(data) + len("second"))
			if s := p.Stats(); s.BytesUp != want || s.BytesDown != want || s.Connections != 2 {
				t.Errorf("counted %+v, want %d bytes each way and 2 connections", s, want)
			}
		})
	}
}

func TestCutResetsAndLetsReconnect(t *testing.T) {
	p := start(t, echo(t), Options{})
	one, two := dial(t, p), dial(t, p)
	say(t, one, "hello")
	say(t, two, "hello")
	p.Cut()
	wantReset(t, one)
	wantReset(t, two)
	say(t, dial(t, p), "again")
}

func TestCutAfterPassesNoMore(t *testing.T) {
	p := start(t, echo(t), Options{})
	c := dial(t, p)
	say(t, c, "before")
	start := p.Stats()
	const budget = 100_000
	p.CutAfter(budget)
	go c.Write(make([]byte, 1<<20))
	wantReset(t, c)
	end := p.Stats()
	if passed := end.BytesUp + end.BytesDown - start.BytesUp - start.BytesDown; passed > budget {
		t.Errorf("%d bytes passed, allowed %d", passed, budget)
	}
	c = dial(t, p)
	for range 40 {
		say(t, c, strings.Repeat("x", 10_000))
	}
}

func TestCutAfterNothingCutsAndNegativeDisarms(t *testing.T) {
	p := start(t, echo(t), Options{})
	c := dial(t, p)
	say(t, c, "x")
	p.CutAfter(5)
	p.CutAfter(-1)
	say(t, c, "longer than five")
	p.CutAfter(0)
	wantReset(t, c)
}

func TestStallHoldsAndResumeDelivers(t *testing.T) {
	p := start(t, echo(t), Options{})
	c := dial(t, p)
	say(t, c, "before")
	p.Stall()
	if _, err := io.WriteString(c, "held"); err != nil {
		t.Fatal(err)
	}
	late := dial(t, p)
	if _, err := io.WriteString(late, "late"); err != nil {
		t.Fatal(err)
	}
	before := p.Stats()
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
		t.Fatalf("read %d bytes through a black hole: %v", n, err)
	}
	if after := p.Stats(); after.BytesUp != before.BytesUp {
		t.Errorf("%d bytes passed a black hole", after.BytesUp-before.BytesUp)
	}
	c.SetReadDeadline(time.Time{})
	p.Resume()
	for conn, want := range map[net.Conn]string{c: "held", late: "late"} {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
			t.Errorf("after Resume: %q, %v", got, err)
		}
	}
}

// TestStallOfOneWay lets the other pass.
func TestStallOfOneWay(t *testing.T) {
	p := start(t, echo(t), Options{})
	c := dial(t, p)
	say(t, c, "before")
	p.StallDown()
	if _, err := io.WriteString(c, "heard"); err != nil {
		t.Fatal(err)
	}
	for heard := p.Stats().BytesDown + 5; p.Stats().BytesUp < heard; {
		time.Sleep(time.Millisecond)
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !isTimeout(err) {
		t.Fatalf("an answer came through: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	p.Resume()
	p.StallUp()
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	sent := p.Stats().BytesUp
	if _, err := io.WriteString(c, "unheard"); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !isTimeout(err) || p.Stats().BytesUp != sent {
		t.Fatalf("it was heard: %v", err)
	}
}

// TestAbandonLeavesTheServerAlone has only the client hear of the end.
func TestAbandonLeavesTheServerAlone(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	p := start(t, listener.Addr().String(), Options{})
	c := dial(t, p)
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p.Abandon()
	wantReset(t, c)
	server.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := server.Read(make([]byte, 1)); !isTimeout(err) {
		t.Fatalf("the server heard of it: %v", err)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestCutWhileStalled(t *testing.T) {
	p := start(t, echo(t), Options{})
	c := dial(t, p)
	say(t, c, "x")
	p.Stall()
	c.Write([]byte("lost"))
	p.Cut()
	wantReset(t, c)
	p.Resume()
	say(t, dial(t, p), "again")
}

func TestRefuse(t *testing.T) {
	p := start(t, echo(t), Options{})
	old := dial(t, p)
	say(t, old, "x")
	p.Refuse(true)
	wantRefused(t, p)
	say(t, old, "still there")
	p.Refuse(false)
	say(t, dial(t, p), "again")
}

func TestAbsentTargetResets(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := listener.Addr().String()
	listener.Close()
	wantRefused(t, start(t, target, Options{}))
}

func TestCloseEndsEverything(t *testing.T) {
	p := start(t, echo(t), Options{Delay: time.Hour})
	c := dial(t, p)
	c.Write([]byte("never arrives"))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err == nil {
		t.Error("the connection ended in good order")
	}
	if s := p.Stats(); s.Open != 0 {
		t.Errorf("%d connections are open after Close", s.Open)
	}
}

// TestPumpDelays runs a pump on the clock of a bubble, so that its times are exact.
func TestPumpDelays(t *testing.T) {
	for _, c := range []struct {
		name string
		opts Options
		want []time.Duration
	}{
		{"no delay", Options{}, []time.Duration{0, 0, 0}},
		{"delay holds every byte equally", Options{Delay: 50 * time.Millisecond},
			[]time.Duration{50 * time.Millisecond, 50 * time.Millisecond, 50 * time.Millisecond}},
		{"rate spaces them", Options{Rate: 1000},
			[]time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond}},
		{"both", Options{Delay: time.Second, Rate: 1000},
			[]time.Duration{1100 * time.Millisecond, 1200 * time.Millisecond, 1300 * time.Millisecond}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := arrivals(t, c.opts, len(c.want)); !equal(got, c.want) {
					t.Errorf("arrived after %v, want %v", got, c.want)
				}
			})
		})
	}
}

// arrivals sends n parcels of 100 bytes at once and returns when each came out.
func arrivals(t *testing.T, opts Options, n int) []time.Duration {
	begin := time.Now()
	in, src := net.Pipe()
	dst, out := net.Pipe()
	p := pump{
		dst: dst, src: src, line: newLine(opts), gate: newGate(), window: 1 << 20,
		cut: func() {}, stop: func() { src.Close(); dst.Close() },
	}
	var done sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	done.Go(func() { p.run(ctx) })
	done.Go(func() {
		for range n {
			in.Write(make([]byte, 100))
		}
	})
	var got []time.Duration
	for range n {
		if _, err := io.ReadFull(out, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		got = append(got, time.Since(begin))
	}
	cancel()
	done.Wait()
	return got
}

func equal(a, b []time.Duration) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestLineIsSharedByConnections(t *testing.T) {
	l := newLine(Options{Delay: time.Second, Rate: 100})
	now := time.Unix(1000, 0)
	for i, want := range []time.Duration{2, 3, 4} {
		if got := l.arrival(now, 100).Sub(now); got != want*time.Second {
			t.Errorf("parcel %d arrives after %v, want %v", i, got, want*time.Second)
		}
	}
	later := now.Add(time.Hour)
	if got := l.arrival(later, 50).Sub(later); got != 1500*time.Millisecond {
		t.Errorf("an idle line takes %v", got)
	}
}
