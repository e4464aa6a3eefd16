package sftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/slavetest"
)

// heavyNode is a node of the index as somebody may have put it into the slave: whole, and with n entries that have so much of xattrs.
func heavyNode(n, xattr int) []byte {
	b := binary.AppendUvarint(append([]byte("georep index 1\n"), 0), uint64(n))
	value := make([]byte, xattr)
	for i := range n {
		name := strconv.FormatInt(int64(i), 36)
		b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
		b = append(b, make([]byte, 2+16+14+1)...) // kind, flags, GFID, numbers, target
		if xattr == 0 {
			b = append(b, 0)
			continue
		}
		b = append(b, 1, 1, 'x')
		b = append(binary.AppendUvarint(b, uint64(xattr)), value...)
	}
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// TestHeavyNodesLeaveItSmall: whatever the nodes of the index have in them, many that are read at the same time leave the process within
// its memory. It is one of its own, with the limit that georep's processes have.
func TestHeavyNodesLeaveItSmall(t *testing.T) {
	for name, of := range map[string]struct{ entries, xattr int }{
		"baseline":           {1, 0},
		"many entries":       {40_000, 0},
		"few, of long text":  {60, 50_000},
		"more than may be":   {400_000, 0},
		"small, many":        {6_000, 0},
		"one that is large":  {1_000, 12_000},
		"as a session makes": {2048, 60},
	} {
		t.Run(name, func(t *testing.T) {
			if root := os.Getenv(liarChild); root != "" {
				debug.SetMemoryLimit(72 << 20)
				readHeavy(t, root)
				fmt.Printf("resident %d\n", peakResident(t))
				return
			}
			node := heavyNode(of.entries, of.xattr)
			root := heavySlave(t, node)
			inner, err := library(t)
			if err != nil {
				t.Fatal(err)
			}
			out := runAgainst(t, inner, root)
			size := regexp.MustCompile(`resident (\d+)`).FindSubmatch(out)
			if size == nil {
				t.Fatalf("%s", out)
			}
			rss, _ := strconv.ParseInt(string(size[1]), 10, 64)
			t.Logf("the process had %d MiB at the most, of %d nodes of %d KiB", rss>>20, heavyDirs(), len(node)>>10)
			if rss > promised && !raceDetector() {
				t.Errorf("the process had %d MiB", rss>>20)
			}
		})
	}
}

// heavyDirs are fewer under the race detector, which takes its time, and memory of its own.
func heavyDirs() int {
	if raceDetector() {
		return 4
	}
	return 64
}

// heavySlave is a slave whose directories have such a node each.
func heavySlave(t *testing.T, node []byte) (root string) {
	root = memory(t)
	tree, err := open(t.Context(), options(t, root, library, 1), quickLease)
	if err != nil {
		t.Fatal(err)
	}
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	for i := range heavyDirs() {
		dir := fmt.Sprint("d", i)
		f.Must(slavetest.Mkdir(dir, slavetest.Rec(2*i+1, 0)), slavetest.Put(dir+"/f", slavetest.Rec(2*i+2, 0), "x"))
	}
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	nodes, err := filepath.Glob(filepath.Join(root, slave.Reserved, "index", "??", "*"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, path := range nodes {
		if id, err := strconv.ParseUint(filepath.Base(path), 16, 64); err != nil || id < 100 {
			continue // those of the root and its like
		}
		if n++; os.WriteFile(path, node, 0o600) != nil {
			t.Fatal(path)
		}
	}
	if n < heavyDirs() {
		t.Fatalf("%d nodes of %d directories", n, heavyDirs())
	}
	return root
}

// readHeavy reads all of them at the same time.
func readHeavy(t *testing.T, root string) {
	stream := func(testing.TB) (io.ReadWriteCloser, error) {
		err := errors.Join(unix.SetNonblock(3, true), unix.SetNonblock(4, true)) // so that a read ends when it is closed
		return inherited{os.NewFile(3, "in"), os.NewFile(4, "out")}, err
	}
	tree, err := open(t.Context(), options(t, root, stream, 1), quickLease)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	queries := make([]slave.Query, heavyDirs())
	for i := range queries {
		queries[i].Path = fmt.Sprint("d", i)
	}
	states, err := tree.Survey(t.Context(), queries)
	if err != nil {
		t.Fatal(err)
	}
	for i := range states {
		if states[i].Err != nil || len(states[i].Entries) != 1 {
			t.Fatalf("%q: %+v", queries[i].Path, states[i])
		}
	}
}
