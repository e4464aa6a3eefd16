package doctor

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"georep/internal/service"
	"georep/marker/inotify"
	"georep/status"
)

// Least room in the state directory.
const (
	stateLow  = 64 << 20 // bytes
	inodesLow = 1000
)

// Least limits of inotify, below which a large tree or many sessions do not get what they need.
const (
	watchesLow   = 65_536
	instancesLow = 128
	filesLow     = 4096
)

// needed are the capabilities that a master's end uses, with what is lost without them.
var needed = []struct {
	value cap.Value
	lost  string
}{
	{cap.DAC_READ_SEARCH, "files of other users cannot be read"},
	{cap.SYS_ADMIN, "changes are learnt by inotify, and trusted.* attributes are not replicated"},
	{cap.SYS_PTRACE, "who holds a file open is not known for programs of other users"},
}

// host looks at what all sessions of this host share.
func (x *examination) host() {
	p := place{x, OfHost}
	p.kernel()
	p.privileges()
	p.stateDirectory()
	p.service()
	p.clock()
	p.limits()
}

// kernel compares with the oldest that has every call that is used.
func (p place) kernel() {
	const check, major, minor = "kernel", 5, 17
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		p.problem(check, "", "uname: %v", err)
		return
	}
	release := unix.ByteSliceToString(u.Release[:])
	var have [2]int
	if n, _ := fmt.Sscanf(release, "%d.%d", &have[0], &have[1]); n != 2 {
		p.note(check, "Linux %s: not a release that can be compared", release)
		return
	}
	if have[0] < major || have[0] == major && have[1] < minor {
		p.warn(check, "use a newer kernel for that", "Linux %s: fanotify tells names from %d.%d on; changes are learnt by inotify",
			release, major, minor)
		return
	}
	p.ok(check, "Linux %s, georep %s", release, p.x.Version)
}

// privileges tells what this user cannot do.
func (p place) privileges() {
	const check = "privileges"
	var lost []string
	for _, c := range needed {
		if !has(c.value) {
			lost = append(lost, fmt.Sprintf("without %s %s", strings.ToUpper(c.value.String()), c.lost))
		}
	}
	if len(lost) == 0 {
		p.ok(check, "uid %d has the capabilities that a master's end uses", os.Geteuid())
		return
	}
	p.warn(check, "run it as root, or by the unit georep-unprivileged.service", "uid %d: %s", os.Geteuid(), strings.Join(lost, "; "))
}

// has tells whether this process may use a capability.
func has(v cap.Value) bool {
	set, err := cap.GetPID(0) // GetProc would panic
	if err != nil {
		return false
	}
	may, err := set.GetFlag(cap.Effective, v)
	return err == nil && may
}

// stateDirectory looks for room, and for others who might write there.
func (p place) stateDirectory() {
	const check = "state directory"
	dir := p.x.Store.Dir()
	st, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		p.note(check, "%s is not there yet; the first session makes it", dir)
		return
	}
	if err != nil {
		p.problem(check, "run as the user whose sessions these are", "%v", err)
		return
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		p.problem(check, "", "statfs %s: %v", dir, err)
		return
	}
	free := int64(fs.Bavail) * fs.Bsize
	switch {
	case unix.Access(dir, unix.W_OK) != nil:
		p.problem(check, "run as root, or name another with --state-dir", "%s cannot be written to", dir)
	case st.Mode().Perm()&0o022 != 0:
		p.problem(check, "chmod go-w "+dir, "others may write to %s, and so decide what is replicated", dir)
	case free < stateLow:
		p.warn(check, "make room there", "%s has only %s of room", dir, status.Bytes(free))
	case fs.Files > 0 && fs.Ffree < inodesLow:
		p.warn(check, "remove files there", "%s has room for only %d files", dir, fs.Ffree)
	default:
		p.ok(check, "%s, %s free", dir, status.Bytes(free))
	}
}

// service tells whether sessions live on after a reboot.
func (p place) service() {
	const check = "service"
	if service.Dial(p.x.Store) != nil {
		p.ok(check, "georep run supervises the sessions")
		return
	}
	p.note(check, "georep run does not run: sessions do not come back after a reboot (systemctl enable --now georep)")
}

// clock tells whether anything keeps it right. Xtimes never go back, so a wrong clock loses nothing; times that are shown
// are wrong.
func (p place) clock() {
	const check = "clock"
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		p.note(check, "the kernel does not tell whether it is synchronised: %v", err)
		return
	}
	if t.Status&unix.STA_UNSYNC != 0 {
		p.note(check, "%s; the kernel does not know it as synchronised. Nothing is lost by a wrong clock, but times that are shown are wrong",
			time.Now().Format(time.DateTime+" MST"))
		return
	}
	p.ok(check, "synchronised, within %v", (time.Duration(t.Maxerror) * time.Microsecond).Round(time.Millisecond))
}

// limits are the kernel's that a large tree, or many sessions, may meet.
func (p place) limits() {
	const check = "limits"
	low := false
	for _, l := range []struct {
		name  string
		least int
		use   string
	}{
		{"fs.inotify.max_user_watches", watchesLow, "one for each directory where inotify is used"},
		{"fs.inotify.max_user_instances", instancesLow, "some for each session"},
		{"fs.fanotify.max_user_marks", watchesLow, "one for each volume"},
	} {
		if have := inotify.Limit(l.name); have >= 0 && have < l.least { // -1: an older kernel
			low = true
			p.warn(check, inotify.Raise(l.name, 8*l.least), "%s is %d: %s", l.name, have, l.use)
		}
	}
	var open unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &open); err == nil && open.Max < filesLow {
		low = true
		p.warn(check, "raise it: ulimit -Hn, or LimitNOFILE= in a unit", "a process may have only %d files open", open.Max)
	}
	if !low {
		p.ok(check, "inotify, fanotify and open files have room enough")
	}
}
