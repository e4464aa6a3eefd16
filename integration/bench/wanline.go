package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"georep/integration/harness/proxy"
)

// lineRow measures the proxy that stands in for the WAN, so that a slow machine is not taken for a slow georep: its round
// trip, the rate of plain TCP with one connection and with several, and that of ssh.
func lineRow(l *lab, t *host, rep *report) {
	bytes := int64(l.scaled(256<<20, 4<<20))
	out := table{title: "The WAN itself", rows: [][]string{{"what", "measured", "should be"}},
		note: "ssh has a window of 2 MiB a channel, which is 20 MB/s at 100 ms. Where plain TCP does not reach the rate, the " +
			"machine is too slow for the proxy, and the WAN rows say less."}
	add := func(what string, v float64, unit, want string) {
		out.rows = append(out.rows, []string{what, quantity(v, unit), want})
	}
	add("round trip", roundTrip(t)*1000, "ms", "100 ms")
	for _, n := range []int{1, 4} {
		add(fmt.Sprintf("TCP, %d at once", n), plainRate(t, n, bytes)/1e6, "MB/s", "125 MB/s")
	}
	s := l.over(t, wan)
	for _, n := range []int{1, 8} {
		add(fmt.Sprintf("ssh, %d at once", n), s.sshRate(t, n, int64(l.scaled(64<<20, 1<<20)))/1e6, "MB/s",
			map[int]string{1: "20 MB/s", 8: "125 MB/s, if the machine encrypts so fast"}[n])
	}
	rep.tables = append(rep.tables, out)
}

// server takes connections on loopback and hands each to serve until the row ends.
func server(t *host, serve func(net.Conn)) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	t.must(err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return listener.Addr().String()
}

// through is the address of a WAN that leads to target.
func through(t *host, target string) string {
	p, err := proxy.New(target, proxy.Options{Delay: wanDelay, Rate: wanRate, Window: wanWindow})
	t.must(err)
	t.Cleanup(func() { p.Close() })
	return p.Addr()
}

// roundTrip is the median time, in seconds, from a byte to its echo.
func roundTrip(t *host) float64 {
	c, err := net.Dial("tcp", through(t, server(t, func(c net.Conn) { io.Copy(c, c) })))
	t.must(err)
	defer c.Close()
	t.must(c.SetDeadline(time.Now().Add(time.Minute)))
	var took []float64
	one := []byte{0}
	for range 10 {
		s, err := clocked(func() error {
			if _, err := c.Write(one); err != nil {
				return err
			}
			_, err := io.ReadFull(c, one)
			return err
		})
		t.must(err)
		took = append(took, s)
	}
	return median(took)
}

// plainRate is what n connections carry together, in bytes a second, counted from when the first byte arrives.
func plainRate(t *host, n int, bytes int64) float64 {
	arrivals := make(chan arrival, n)
	addr := through(t, server(t, func(c net.Conn) {
		defer c.Close()
		arrivals <- drain(c)
	}))
	var group errgroup.Group
	for range n {
		group.Go(func() error { return push(addr, bytes/int64(n)) })
	}
	t.must(group.Wait())
	return rate(t, arrivals, n)
}

// push sends n bytes and the end.
func push(addr string, n int64) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(c, io.LimitReader(zeros{}, n))
	return err
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// sshRate is what n ssh clients carry together, each so many bytes, in bytes a second, counted from when the first of them
// arrives: logging in does not count.
func (s *site) sshRate(t *host, n int, bytes int64) float64 {
	ctx, cancel := context.WithTimeoutCause(t.ctx, s.lab.cfg.timeout, errTimeout)
	defer cancel()
	var group errgroup.Group
	arrivals := make(chan arrival, n)
	for range n {
		group.Go(func() error {
			cmd := command(ctx, s.sshHost(fmt.Sprintf("head -c %d /dev/zero", bytes)))
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				return said(cmd, err, nil)
			}
			arrivals <- drain(out)
			return said(cmd, cmd.Wait(), nil)
		})
	}
	t.must(group.Wait())
	return rate(t, arrivals, n)
}

// arrival is what came over one connection, and from when to when.
type arrival struct {
	first, last time.Time
	bytes       int64
}

// drain reads to the end.
func drain(r io.Reader) (a arrival) {
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		a.bytes += int64(n)
		if a.last = time.Now(); n > 0 && a.first.IsZero() {
			a.first = a.last
		}
		if err != nil {
			return a
		}
	}
}

// rate adds up n connections that were at work at once.
func rate(t *host, arrivals <-chan arrival, n int) float64 {
	var all arrival
	for range n {
		select {
		case a := <-arrivals:
			all.bytes += a.bytes
			if all.first.IsZero() || a.first.Before(all.first) {
				all.first = a.first
			}
			if a.last.After(all.last) {
				all.last = a.last
			}
		case <-time.After(time.Minute):
			t.Fatal("the bytes do not arrive")
		}
	}
	return float64(all.bytes) / all.last.Sub(all.first).Seconds()
}
