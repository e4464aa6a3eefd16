package integration

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"georep/integration/harness/fstest"
)

type opd struct {
	in  io.Writer
	out *bufio.Reader
}

func newOpd(t *testing.T) *opd {
	c := exec.Command("/tmp/coord/opd.bin")
	in, _ := c.StdinPipe()
	out, _ := c.StdoutPipe()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); c.Wait() })
	return &opd{in, bufio.NewReader(out)}
}

func (o *opd) do(format string, args ...any) string {
	fmt.Fprintf(o.in, format+"\n", args...)
	line, _ := o.out.ReadString('\n')
	return strings.TrimSpace(line)
}

func TestZZ(t *testing.T) {
	seed, _ := strconv.ParseUint(os.Getenv("ZZ"), 10, 64)
	rnd := rand.New(rand.NewPCG(seed, 1))
	pool := make([]*opd, 6)
	for i := range pool {
		pool[i] = newOpd(t)
	}
	for run := 0; run < 100; run++ {
		if !t.Run(fmt.Sprint(run), func(t *testing.T) { zz(t, rnd, pool) }) {
			return
		}
	}
}

func zz(t *testing.T, rnd *rand.Rand, pool []*opd) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	s := newSession(t, master, slave)
	const n = 1500
	used := 0
	file := func(i int) string { return filepath.Join(master, "a", fmt.Sprint(i), "f") }
	for i := range n {
		if err := os.MkdirAll(filepath.Dir(file(i)), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, file(i), "content")
	}
	b := filepath.Join(master, "b")
	g, h, nw, c, d := b+"/g", b+"/h", b+"/new", master+"/c", b+"/d"
	outside := filepath.Join(filepath.Dir(master), "outside")
	os.Mkdir(b, 0o755)
	s.must(s.start("--hints", "on", "--log-level", "debug"))
	s.waitSynced()
	var log []string
	nap := func() {
		switch rnd.IntN(8) {
		case 0:
			time.Sleep(time.Duration(rnd.IntN(12000)) * time.Microsecond)
		case 1, 2, 3:
			time.Sleep(time.Duration(rnd.IntN(2500)) * time.Microsecond)
		case 4:
			if rnd.IntN(6) == 0 {
				time.Sleep(time.Duration(rnd.IntN(100000)) * time.Microsecond)
			}
		}
	}
	for round := 0; used+40 < n; round++ {
		log = log[:0]
		for range 40 {
			i := used
			used++
			do := func(o *opd, format string, args ...any) {
				what := fmt.Sprintf(format, args...)
				r := o.do("%s", what)
				log = append(log, fmt.Sprintf("%s %d %s: %s", time.Now().Format("05.000000"), i, strings.ReplaceAll(what, master, ""), r))
				nap()
			}
			rnd.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
			P, L, R, M, Q := pool[0], pool[1], pool[2], pool[3], pool[4]
			for _, p := range []string{g, h, nw} {
				if _, err := os.Lstat(p); err == nil {
					do(M, "rm %s", p)
				}
			}
			do(P, "new %s", nw)
			do(L, "ln %s %s", file(i), g)
			do(P, "append %s changed", g)
			if rnd.IntN(2) == 0 {
				R = P
			}
			switch rnd.IntN(12) {
			case 0, 1, 2, 3:
				do(R, "rm %s", g)
			case 4:
				do(R, "mv %s %s", nw, g)
			case 5:
				do(R, "mv %s %s", g, h)
				do(Q, "rm %s", h)
			case 6:
				do(R, "mkdir %s", d)
				do(Q, "mv %s %s", g, d+"/g")
				do(M, "rmr %s", d)
			case 7, 8, 9:
				do(R, "mv %s %s", b, c)
				do(Q, "rmr %s", c)
				do(M, "mkdir %s", b)
			case 10, 11:
				time.Sleep(time.Duration(rnd.IntN(100000)) * time.Microsecond)
				do(R, "mv %s %s", g, outside)
				do(Q, "rm %s", outside)
			}
		}
		s.waitSynced()
		if t.Failed() {
			break
		}
	}
	if t.Failed() {
		for _, l := range log {
			t.Log(l)
		}
	}
}
