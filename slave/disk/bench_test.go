package disk

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/slavetest"
)

// BenchmarkApply applies batches of 256 new files of 4 KiB; the time is that of one file.
func BenchmarkApply(b *testing.B) {
	for _, base := range []string{"/dev/shm", os.TempDir()} {
		b.Run(base, func(b *testing.B) {
			root, err := os.MkdirTemp(base, "slave")
			if err != nil {
				b.Fatal(err)
			}
			defer os.RemoveAll(root)
			tree, err := Open(Options{Path: root, Master: xtime.UUID{1}, Session: xtime.UUID{2}, Logger: zerolog.Nop()})
			if err != nil {
				b.Fatal(err)
			}
			defer tree.Close()
			benchFiles(b, tree)
		})
	}
}

func benchFiles(b *testing.B, tree *Tree) {
	text := strings.Repeat("x", 4096)
	for n := 0; n < b.N; {
		dir := fmt.Sprint("d", n)
		ops := []slave.Op{slavetest.Mkdir(dir, slavetest.Rec(n, 0))}
		for range min(256, b.N-n) {
			ops = append(ops, slavetest.Put(fmt.Sprint(dir, "/f", n), slavetest.Rec(n+1, 1), text))
			n++
		}
		res, err := tree.Apply(b.Context(), &slave.Batch{Ops: ops})
		if err != nil {
			b.Fatal(err)
		}
		for i := range res {
			if res[i].Err != nil {
				b.Fatal(res[i].Err)
			}
		}
	}
}
