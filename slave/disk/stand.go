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

// rootMark is what the owner's file says of the root; "" where nothing can be said that will still
// hold tomorrow. It is compared by sameRoot only, and never parsed by anybody else.
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

// stands tells with slave.ErrAbsent that the root is not at its path any more: it was renamed,
// removed or unmounted, or something else was mounted over it. What is done to it then reaches
// nobody who looks at the path. It costs one stat. Errors that may pass, such as EIO, say that it
// stands.
func (w *ownership) stands() error {
	var at unix.Stat_t
	err := unix.Stat(w.info.Path, &at)
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EACCES, unix.ESTALE:
		return fmt.Errorf("slave %s: %w", w.info.Path, slave.Gone(err))
	default:
		return nil // that tells nothing of where the path leads
	}
	if at.Dev != w.opened.Dev || at.Ino != w.opened.Ino { // whose number is nobody else's, as long as it is open
		return fmt.Errorf("slave %s: %w", w.info.Path, slave.Gone(errElsewhere))
	}
	return nil
}

var errElsewhere = errors.New("the path leads to another directory than before: it was unmounted, mounted over, or replaced")

// keepWatch ends the session when the root does not stand any more, also while nobody asks for
// anything. It ends when the slave is closed or lost.
func (w *ownership) keepWatch() {
	tick := time.NewTicker(standEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if w.lostRoot() {
				return
			}
		case <-w.done:
			return
		case <-w.closing:
			return
		}
	}
}

// lostRoot looks whether the root stands, and ends the session where it does not. The operations at
// work fail with the reason, and the session is Faulty until the root is back.
func (w *ownership) lostRoot() bool {
	err := w.stands()
	if err == nil {
		return false
	}
	w.lose(err)
	return true
}
