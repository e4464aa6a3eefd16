package writers

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// query is struct procmap_query of linux/fs.h. Its layout is the kernel's: 104 bytes, all numbers
// in the machine's order. The kernel reads and writes it in place.
type query struct {
	size, flags, addr     uint64
	start, end, vma       uint64
	page, offset, inode   uint64
	devMajor, devMinor    uint32
	nameSize, buildIDSize uint32
	nameAddr, buildIDAddr uint64
}

const (
	procmapQuery = 0xc0686611 // PROCMAP_QUERY: Linux 6.11
	// Writable, shared, of a file; the first that covers the address or lies behind it.
	procmapFlags = 0x02 | 0x08 | 0x10 | 0x20
)

// mapping is a part of a process's memory that is shared with a file, and writable. start and end
// are addresses, by which /proc names the mapping; path is advice, as the kernel writes it.
type mapping struct {
	start, end uint64
	dev        uint64
	path       string
}

// mappings adds the files that are mapped.
func (f *Finder) mappings(p *process, dir string) error {
	maps, err := unix.Open(dir+"/maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	add := func(m *mapping) {
		if m.dev == f.volume.Super || f.volume.Subvolumes && unix.Major(m.dev) == 0 {
			p.files = append(p.files, mapped(dir, m))
		}
	}
	err = f.queryMaps(maps, add)
	if !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL) {
		return errors.Join(err, unix.Close(maps))
	}
	text := os.NewFile(uintptr(maps), "maps") // of a kernel that cannot be asked
	return errors.Join(readMaps(bufio.NewScanner(text), add), text.Close())
}

// mapped is a mapping's file: by the link to it, which only some may follow, or else by name.
// Following links in map_files needs a capability. Without it the path is all there is.
func mapped(dir string, m *mapping) File {
	link := fmt.Sprintf("%s/map_files/%x-%x", dir, m.start, m.end)
	var st unix.Stat_t
	if err := unix.Stat(link, &st); errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return File{Path: m.path, Mapped: true}
	}
	return File{Link: link, Path: m.path, Mapped: true}
}

// queryMaps asks the kernel for the mappings that count, one after the other. It ends where no
// mapping lies behind the last address. ENOTTY or EINVAL come from kernels without the call;
// nothing was added then. The process may change its mappings meanwhile: what came behind the
// search is met by the next look.
func (f *Finder) queryMaps(fd int, add func(*mapping)) error {
	name := f.name
	for addr := uint64(0); ; {
		q := query{flags: procmapFlags, addr: addr, nameSize: uint32(len(name)), nameAddr: uint64(uintptr(unsafe.Pointer(&name[0])))}
		q.size = uint64(unsafe.Sizeof(q))
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), procmapQuery, uintptr(unsafe.Pointer(&q)))
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.ENOENT, unix.ESRCH:
			return nil
		default:
			return errno
		}
		path := ""
		if q.nameSize > 0 {
			path = string(name[:q.nameSize-1])
		}
		add(&mapping{q.start, q.end, unix.Mkdev(q.devMajor, q.devMinor), path})
		addr = q.end
	}
}

// readMaps reads the text form, "start-end rw-s offset major:minor inode path". Lines that do not
// have this form are passed over, as are private and read-only mappings.
func readMaps(lines *bufio.Scanner, add func(*mapping)) error {
	for lines.Scan() {
		var m mapping
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || len(fields[1]) != 4 || fields[1][1] != 'w' || fields[1][3] != 's' {
			continue
		}
		var major, minor uint32
		_, rangeErr := fmt.Sscanf(fields[0], "%x-%x", &m.start, &m.end)
		_, devErr := fmt.Sscanf(fields[3], "%x:%x", &major, &minor)
		if rangeErr != nil || devErr != nil {
			continue
		}
		m.dev = unix.Mkdev(major, minor)
		_, path, _ := strings.Cut(lines.Text(), " "+fields[4]+" ")
		m.path = strings.ReplaceAll(strings.TrimLeft(path, " "), `\012`, "\n")
		add(&m)
	}
	return lines.Err()
}

// Super is the device of the file system that is mounted as the mount of that number, as this
// process sees it. Stat shows another device on btrfs, and on an overlay.
func Super(mount uint64) (uint64, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return 0, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || fields[0] != strconv.FormatUint(mount, 10) {
			continue
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); err != nil {
			return 0, fmt.Errorf("/proc/self/mountinfo: %q: %w", fields[2], err)
		}
		return unix.Mkdev(major, minor), nil
	}
	return 0, errors.Join(lines.Err(), fmt.Errorf("/proc/self/mountinfo has no mount %d", mount))
}

// eachEntry reads struct linux_dirent64: ino u64, off s64, reclen u16, type u8, name with a NUL.
func eachEntry(b []byte, fn func(name string, ino uint64)) {
	const header = 19
	for len(b) > header {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size <= header || size > len(b) {
			return
		}
		name, _, _ := strings.Cut(string(b[header:size]), "\x00")
		if name != "." && name != ".." {
			fn(name, binary.NativeEndian.Uint64(b))
		}
		b = b[size:]
	}
}
