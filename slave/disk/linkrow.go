package disk

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/gfidindex"
)

// rowForm marks the form of linkRow.text; an earlier one has names without their directories.
const rowForm = 2

// linkRow is what links/ says of one inode. It is bounded by apply.MaxNames. One that is full says
// that there may be more names, which only a search finds.
type linkRow struct {
	apply.Names
	names []string
	dirs  []gfidindex.Key // of each name, the directory that it lies in; Root where that is the root, or not known
}

// add takes in a name that is new. Beyond apply.MaxNames it is left out.
func (row *linkRow) add(name string, dir gfidindex.Key) {
	if len(row.names) < apply.MaxNames {
		row.names, row.dirs = append(row.names, name), append(row.dirs, dir)
	}
}

// addNew is add for many, which seen remembers.
func (row *linkRow) addNew(name string, dir gfidindex.Key, seen map[string]struct{}) {
	if _, have := seen[name]; !have && len(row.names) < apply.MaxNames {
		seen[name] = struct{}{}
		row.names, row.dirs = append(row.names, name), append(row.dirs, dir)
	}
}

// parseRow reads the form of linkRow.text. Nothing in it is believed: wrong paths are left out. An
// empty row stands for whatever cannot be read: the inode is then looked for, and compared.
func parseRow(text []byte) linkRow {
	head, rest, ok := bytes.Cut(text, []byte("\n"))
	var row linkRow
	var at uint64
	var form int
	n, err := fmt.Sscanf(string(head), "%d %d %d %t %d", &row.Ino, &row.Want, &at, &row.Final, &form)
	if !ok || n < 4 || n == 5 && (err != nil || form != rowForm) {
		return linkRow{}
	}
	row.At = xtime.Time(at)
	seen := map[string]struct{}{}
	for len(rest) > 0 {
		name, tail, whole := bytes.Cut(rest, []byte{0})
		dir := gfidindex.Root
		if n == 5 {
			dir, name, whole = cutDir(name, whole)
		}
		if whole && len(name) > 0 && slave.AllowedPath(string(name)) {
			row.addNew(string(name), dir, seen)
		}
		rest = tail
	}
	return row
}

// cutDir takes the directory off a name.
func cutDir(b []byte, whole bool) (gfidindex.Key, []byte, bool) {
	if len(b) < 16 {
		return 0, nil, false
	}
	k, err := strconv.ParseUint(string(b[:16]), 16, 64)
	return gfidindex.Key(k), b[16:], whole && err == nil
}

// text is the form that parseRow reads. Names hold any byte but NUL, which therefore ends them.
func (row linkRow) text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d %d %d %t %d\n", row.Ino, row.Want, uint64(row.At), row.Final, rowForm)
	for i, name := range row.names {
		fmt.Fprintf(&b, "%016x%s\x00", uint64(row.dirs[i]), name)
	}
	return b.Bytes()
}

// without is the row less one name.
func (row linkRow) without(i int) linkRow {
	row.names, row.dirs = slices.Delete(slices.Clone(row.names), i, i+1), slices.Delete(slices.Clone(row.dirs), i, i+1)
	return row
}

// find looks for a name, by its directory where that is known, and else by its path, which the row
// may have from before its directory moved. -1: it is not there.
func (row *linkRow) find(path string, dir gfidindex.Key) int {
	_, base := beneath.Split(path)
	for i, name := range row.names {
		if name == path {
			return i
		}
		if dir != gfidindex.Root && row.dirs[i] == dir {
			if _, b := beneath.Split(name); b == base {
				return i
			}
		}
	}
	return -1
}
