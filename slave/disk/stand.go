package disk

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

// standEvery is how often an idle slave looks whether its root still stands under its path.
const standEvery = time.Second

// sameFiles are the file systems whose directories can be told from copies of them for good: by what identifies the inode,
// and by when it was made.
var sameFiles = map[int64]bool{unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true,
	unix.F2FS_SUPER_MAGIC: true, unix.TMPFS_MAGIC: true, 0x2fc12fc1 /* ZFS */ : true}

// rootMark is what the owner's file says of the root; "" where nothing can be said that will still hold tomorrow.
func rootMark(d *beneath.Dir) string {
	fs, err := d.Statfs()
	if err != nil || !sameFiles[int64(fs.Type)] {
		return ""
	}
	id, err := d.Identity()
	if err != nil {
		return ""
	}
	st, err := d.Stat("")
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s %d.%09d %s", id.GFID, st.Btime.Sec, st.Btime.Nsec, id.FSID)
}

// sameRoot tells whether two marks may be of one directory. The id of a file system is the number of its device on some of
// them, which the next boot may change, so it counts only where it is not known when the directory was made.
func sameRoot(a, b string) bool {
	var gfid, born, fsid [2]string
	for i, mark := range []string{a, b} {
		if _, err := fmt.Sscan(mark, &gfid[i], &born[i], &fsid[i]); err != nil {
			return true // it says nothing
		}
	}
	const never = "0.000000000"
	if born[0] == never || born[1] == never {
		return gfid[0] == gfid[1] && fsid[0] == fsid[1]
	}
	return gfid[0] == gfid[1] && born[0] == born[1]
}

// stands tells with slave.ErrAbsent that the root is not at its path any more: it was renamed, removed or unmounted, or
// something else was mounted over it. What is done to it then reaches nobody who looks at the path.
func (t *Tree) stands() error {
	var at unix.Stat_t
	err := unix.Stat(t.info.Path, &at)
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EACCES, unix.ESTALE:
		return fmt.Errorf("slave %s: %w", t.info.Path, slave.Gone(err))
	default:
		return nil // that tells nothing of where the path leads
	}
	if at.Dev != t.opened.Dev || at.Ino != t.opened.Ino { // whose number is nobody else's, as long as it is open
		return fmt.Errorf("slave %s: %w", t.info.Path, slave.Gone(errElsewhere))
	}
	return nil
}

var errElsewhere = errors.New("the path leads to another directory than before: it was unmounted, mounted over, or replaced")

// keepWatch ends the session when the root does not stand any more, also while nobody asks for anything.
func (t *Tree) keepWatch() {
	tick := time.NewTicker(standEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if t.lostRoot() {
				return
			}
		case <-t.done:
			return
		case <-t.closing:
			return
		}
	}
}

// lostRoot looks whether the root stands, and ends the session where it does not.
func (t *Tree) lostRoot() bool {
	err := t.stands()
	if err == nil {
		return false
	}
	t.loseOnce.Do(func() {
		t.lost = err
		close(t.done)
	})
	return true
}

// Done is closed when the slave is lost; Err tells why.
func (t *Tree) Done() <-chan struct{} { return t.done }

// Err is why the slave was lost; nil while it was not.
func (t *Tree) Err() error {
	select {
	case <-t.done:
		return t.lost
	default:
		return nil
	}
}

// over is the error of calls that the end of the session cuts short.
func (t *Tree) over() error {
	if err := t.Err(); err != nil {
		return err
	}
	return ErrClosed
}
