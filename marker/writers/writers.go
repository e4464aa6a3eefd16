// Package writers finds the regular files of one file system that somebody holds open for writing: through descriptors and
// shared mappings of processes, and as backing files of loop devices. What is written through these may raise no event.
//
// A look costs one system call for each process, and more only for those that ran since the look before: a process that
// used no processor time has opened nothing. So it follows what the machine does, and never the size of a tree. Processes of
// georep itself need no look where every plain write raises an event (own.go). The package looks at processes only.
// Whether a file lies in a volume, and changed, its user finds out.
package writers

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// File is a file that is held open for writing. One inode may be held several times.
type File struct {
	// Link leads to the inode, to be opened with O_PATH; "" where this user may not follow it, or there is none.
	Link string
	// Path is that of a mapping without a Link as the kernel knows it: advice.
	Path   string
	Mapped bool // shared and writable
}

// Volume says which files are asked for. It does not change while the Finder lives.
type Volume struct {
	Dev uint64 // what stat says of its files
	// Subvolumes: other anonymous devices may be parts of it, as on btrfs and overlayfs.
	Subvolumes bool
	// Super is the device of the file system itself, by which the kernel names the files of mappings; on btrfs it is
	// another than Dev.
	Super uint64
}

// Finder looks for the holders of one volume's files. It is for one goroutine.
type Finder struct {
	volume  Volume
	self    int
	program program // what this process runs
	// buf is what listings are read into, one at a time; nothing keeps parts of it.
	buf  []byte
	name []byte // for the kernel to write into: it has to stay where it is
	// known is by the number of the process, and has those that the last look met.
	known    map[int]*process
	examined int    // processes that were looked into
	hidden   string // why holders outside of what it sees may exist, whatever a look finds
}

// process is what the last look at a process found. It stands for all threads of the process, which
// share descriptors and memory.
type process struct {
	ino    uint64 // of its directory in /proc: a number that is used again is another one there
	cpu    int64  // ns that it had used before the look
	kernel bool   // a thread of the kernel, which has no descriptors
	denied bool   // this user may not look
	own    owning
	passed bool // not looked into at the last look, since it is georep's own
	files  []File
	round  bool // met by the look that is under way
}

// initPIDNamespace is the number of the machine's own pid namespace (PROC_PID_INIT_INO).
const initPIDNamespace = "pid:[4026531836]"

// New makes a Finder. It finds out once whether processes are hidden from it altogether: those of
// other pid namespaces, or of other users where /proc is mounted with hidepid.
func New(v Volume) *Finder {
	f := &Finder{volume: v, self: os.Getpid(), buf: make([]byte, 32<<10), name: make([]byte, unix.PathMax+1), known: map[int]*process{}}
	f.program, _ = programOf(f.self) // none where that cannot be read: no process is georep's own then
	if ns, err := os.Readlink("/proc/self/ns/pid"); err != nil || ns != initPIDNamespace {
		f.hidden = "georep runs in a pid namespace of its own"
	} else if _, err := os.Stat("/proc/1"); err != nil {
		f.hidden = "/proc hides the processes of others"
	}
	return f
}

// Look gives all files that are held. told says that every write through a descriptor raises an event, whatever name the
// file has; files that only georep's own processes hold are left out then. hidden says why there may be more of them, ""
// where there are not. Processes that end meanwhile are no error. The error is that of listing /proc, after which nothing is
// known.
func (f *Finder) Look(told bool) (files []File, hidden string, err error) {
	list, err := f.processes()
	if err != nil {
		return nil, "", fmt.Errorf("look for open files: %w", err)
	}
	denied := 0 // the first process that this user may not look at
	for _, one := range list {
		if one.pid == f.self {
			continue
		}
		p := f.look(one, told)
		p.round = true
		if p.denied && denied == 0 {
			denied = one.pid
		}
		files = append(files, p.files...)
	}
	for pid, p := range f.known {
		if !p.round {
			delete(f.known, pid)
		}
		p.round = false
	}
	hidden = f.hidden
	if hidden == "" && denied != 0 {
		hidden = fmt.Sprintf("this user may not see what some processes hold open, %s among them", title(denied))
	}
	return append(files, f.loops()...), hidden, nil
}

// listed is a process in a listing of /proc.
type listed struct {
	pid int
	ino uint64
}

// processes lists the numbers in /proc, which are the processes, without their threads.
func (f *Finder) processes() ([]listed, error) {
	var list []listed
	err := f.list("/proc", func(name string, ino uint64) {
		if pid, err := strconv.Atoi(name); err == nil {
			list = append(list, listed{pid, ino})
		}
	})
	return list, err
}

// look gives what a process holds: as it was where it did not run since. A number that is used
// again is told by the inode of its directory. An error that is neither a refusal nor an end has
// the process looked at again the next time.
func (f *Finder) look(one listed, told bool) *process {
	cpu, err := cpuTime(one.pid)
	p := f.known[one.pid]
	if p != nil && err == nil && p.ino == one.ino && (p.kernel || p.cpu == cpu && (told || !p.passed)) {
		return p
	}
	if p == nil || p.ino != one.ino {
		p = &process{ino: one.ino, kernel: isKernelThread(one.pid)}
		f.known[one.pid] = p
	}
	p.cpu, p.files, p.denied = cpu, nil, false
	if p.passed = told && !p.kernel && f.isOwn(one.pid, p); p.passed {
		return p
	}
	f.examined++
	if p.kernel {
		return p
	}
	dir := "/proc/" + strconv.Itoa(one.pid)
	err = f.descriptors(p, dir+"/fd")
	if err == nil {
		err = f.mappings(p, dir)
	}
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		p.denied = true
	case err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH):
		p.cpu = -1 // looked at again in any case
	}
	return p
}

// cpuTime is how long a process has run in all, to the nanosecond: it grows whenever any thread of it does anything.
func cpuTime(pid int) (int64, error) {
	const perProcess = 2 // CPUCLOCK_SCHED
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|perProcess), &ts); err != nil {
		return 0, err
	}
	return ts.Nano(), nil
}

// isKernelThread reads the flags of a process. A process that has ended meanwhile is none.
func isKernelThread(pid int) bool {
	const flag, field = 0x00200000, 6 // PF_KTHREAD; counted from behind the name, which may have spaces and brackets in it
	stat := read("/proc/" + strconv.Itoa(pid) + "/stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) <= field {
		return false
	}
	flags, err := strconv.ParseUint(fields[field], 10, 64)
	return err == nil && flags&flag != 0
}

// title is a process for people.
func title(pid int) string {
	return fmt.Sprintf("%d (%s)", pid, read("/proc/"+strconv.Itoa(pid)+"/comm"))
}

// descriptors adds the files that are open for writing. The list is that of one moment: what is
// opened behind it is met by the next look, since opening it took processor time.
func (f *Finder) descriptors(p *process, dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f.listFd(fd, func(name string, _ uint64) {
		// The mode of the link is that of the descriptor.
		var link unix.Stat_t
		if unix.Fstatat(fd, name, &link, unix.AT_SYMLINK_NOFOLLOW) == nil && link.Mode&unix.S_IWUSR != 0 && f.wanted(fd, name) {
			p.files = append(p.files, File{Link: dir + "/" + name})
		}
	})
}

// wanted tells whether a descriptor leads to a regular file of the volume's file system. It asks no
// server. Asking a server could take for ever when it is away, and this runs over all processes of
// the machine.
func (f *Finder) wanted(dir int, name string) bool {
	var x unix.Statx_t
	if unix.Statx(dir, name, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &x) != nil || x.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	dev := unix.Mkdev(x.Dev_major, x.Dev_minor)
	return dev == f.volume.Dev || f.volume.Subvolumes && x.Dev_major == 0
}

// list calls fn for each entry of a directory.
func (f *Finder) list(dir string, fn func(name string, ino uint64)) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f.listFd(fd, fn)
}

// listFd reads the entries of an open directory, in whatever order the kernel has them.
func (f *Finder) listFd(fd int, fn func(name string, ino uint64)) error {
	for {
		n, err := unix.Getdents(fd, f.buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		eachEntry(f.buf[:n], fn)
	}
}

// loops are the backing files of loop devices that may be written. Read-only devices write nothing.
// The path may lie outside of the volume; its user finds that out.
func (f *Finder) loops() []File {
	var files []File
	err := f.list("/sys/block", func(name string, _ uint64) {
		if !strings.HasPrefix(name, "loop") {
			return
		}
		path := read("/sys/block/" + name + "/loop/backing_file")
		if path != "" && read("/sys/block/"+name+"/ro") != "1" {
			files = append(files, File{Link: path})
		}
	})
	if err != nil {
		return nil // there is no sysfs, and so no loop device that this user could see
	}
	return files
}

// read is a short file of one line; "" where it cannot be read.
func read(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	buf := make([]byte, unix.PathMax)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(buf[:max(n, 0)]), "\n")
}
