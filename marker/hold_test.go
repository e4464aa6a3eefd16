package marker

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// holder is a process that holds a file open for writing, and writes to it when it is told to.
type holder struct {
	t   testing.TB
	cmd *exec.Cmd
	in  *os.File
	out *bufio.Reader
}

// hold starts one. The methods are those of writer.
func hold(t testing.TB, method, dir, name string) *holder {
	t.Helper()
	// A marker in a test takes processes of the test's program for georep's own, which never write without an event. So the
	// holder runs a copy. It is made by another process: a program that this one has open for writing cannot be run.
	program := filepath.Join(t.TempDir(), "holder")
	if err := exec.Command("cp", "/proc/"+strconv.Itoa(os.Getpid())+"/exe", program).Run(); err != nil {
		t.Fatalf("copy the program of the test: %v", err)
	}
	inRead, inWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{t: t, cmd: exec.Command(program), in: inWrite}
	h.cmd.Dir, h.cmd.Stderr, h.cmd.Stdin = dir, os.Stderr, inRead
	h.cmd.Env = append(os.Environ(), roleVar+"=hold", paramsVar+"="+method+" "+name)
	out, err := h.cmd.StdoutPipe()
	if err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	inRead.Close()
	h.out = bufio.NewReader(out)
	t.Cleanup(h.end)
	h.await()
	return h
}

// tell has the process do something, and waits until it is done.
func (h *holder) tell(order string) {
	h.t.Helper()
	fmt.Fprintln(h.in, order)
	h.await()
}

func (h *holder) await() {
	h.t.Helper()
	if line, err := h.out.ReadString('\n'); err != nil || line != "done\n" {
		h.t.Fatalf("the holder says %q: %v", line, err)
	}
}

// end closes the file, and waits.
func (h *holder) end() {
	if h.cmd.ProcessState == nil {
		h.in.Close()
		if err := h.cmd.Wait(); err != nil {
			h.t.Errorf("the holder: %v", err)
		}
	}
}

// holdMain is the process: "write TEXT" writes a page, "link NAME" gives the file a name, "msync" does that.
func holdMain() {
	var method, name string
	fmt.Sscan(os.Getenv(paramsVar), &method, &name)
	w := &writer{method: method}
	must(w.open(name))
	fmt.Println("done")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); fmt.Println("done") {
		order, arg, _ := strings.Cut(lines.Text(), " ")
		switch order {
		case "write":
			copy(w.page, strings.Repeat(arg+" ", 4096/(len(arg)+1)))
			must(w.write())
		case "link":
			must(unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", w.fd), unix.AT_FDCWD, arg, unix.AT_SYMLINK_FOLLOW))
		case "msync":
			must(unix.Msync(w.mapped, unix.MS_SYNC))
		}
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "hold:", err)
		os.Exit(1)
	}
}

// writer writes the first page of a file: by libaio's system calls (aio, direct), by io_uring (uring), through a mapping
// whose descriptor is closed (mmap), or one that stays open (mapfd). "tmpfile" is aio to a file without a name.
type writer struct {
	method string
	fd     int
	page   []byte // aligned
	mapped []byte
	aio    uintptr
	ring   *ring
}

func (w *writer) open(name string) (err error) {
	flags := unix.O_RDWR | unix.O_CREAT
	switch w.method {
	case "direct":
		flags |= unix.O_DIRECT
	case "tmpfile":
		flags = unix.O_RDWR | unix.O_TMPFILE
	}
	if w.fd, err = unix.Open(name, flags, 0o644); err != nil {
		return err
	}
	if w.page, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err != nil {
		return err
	}
	switch w.method {
	case "mmap", "mapfd":
		if err := unix.Ftruncate(w.fd, 4096); err != nil {
			return err
		}
		w.mapped, err = unix.Mmap(w.fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err == nil && w.method == "mmap" {
			err = unix.Close(w.fd)
		}
		return err
	case "uring":
		w.ring, err = newRing()
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 8, uintptr(unsafe.Pointer(&w.aio)), 0); errno != 0 {
		return errno
	}
	return nil
}

func (w *writer) write() error {
	switch {
	case w.mapped != nil:
		copy(w.mapped, w.page)
		return nil
	case w.ring != nil:
		return w.ring.write(w.fd, w.page)
	}
	return w.submit()
}

// iocb is struct iocb of linux/aio_abi.h.
type iocb struct {
	_      uint64    // data
	_      [2]uint32 // key, rw_flags
	opcode uint16
	_      uint16 // reqprio
	fd     uint32
	buf    uint64
	size   uint64
	_      int64     // offset
	_      uint64    // reserved
	_      [2]uint32 // flags, resfd
}

func (w *writer) submit() error {
	const pwrite = 1
	cb := &iocb{opcode: pwrite, fd: uint32(w.fd), buf: uint64(uintptr(unsafe.Pointer(&w.page[0]))), size: 4096}
	if n, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, w.aio, 1, uintptr(unsafe.Pointer(&cb))); n != 1 {
		return fmt.Errorf("io_submit: %w", errno)
	}
	var event [4]int64 // data, obj, res, res2
	n, _, errno := uintptr(0), uintptr(0), unix.EINTR
	for errno == unix.EINTR {
		n, _, errno = unix.Syscall6(unix.SYS_IO_GETEVENTS, w.aio, 1, 1, uintptr(unsafe.Pointer(&event[0])), 0, 0)
	}
	if n != 1 || event[2] != 4096 {
		return fmt.Errorf("io_getevents: %d, %w", event[2], errno)
	}
	return nil
}

// ring is an io_uring of 8 entries.
type ring struct {
	fd           int
	sq, cq, sqes []byte
	tail, array  uint32 // offsets into sq
	head, done   uint32 // offsets into cq: of its head, of its tail
	results      uint32 // and of its entries
	n            uint32
}

func newRing() (*ring, error) {
	const sqRing, cqRing, entries = 0, 0x8000000, 0x10000000 // offsets to map
	var params [120]byte
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&params[0])), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	at := func(off int) uint32 { return binary.NativeEndian.Uint32(params[off:]) }
	r := &ring{fd: int(fd), tail: at(44), array: at(64), head: at(80), done: at(84), results: at(100)}
	var err error
	for _, m := range []struct {
		to  *[]byte
		off int64
	}{{&r.sq, sqRing}, {&r.cq, cqRing}, {&r.sqes, entries}} {
		if *m.to, err = unix.Mmap(r.fd, m.off, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// write writes b at the start of the file.
func (r *ring) write(fd int, b []byte) error {
	const opWrite, getEvents, mask = 23, 1, 7
	slot := r.n & mask
	sqe := r.sqes[64*slot : 64*slot+64]
	clear(sqe)
	sqe[0] = opWrite
	binary.NativeEndian.PutUint32(sqe[4:], uint32(fd))
	binary.NativeEndian.PutUint64(sqe[16:], uint64(uintptr(unsafe.Pointer(&b[0]))))
	binary.NativeEndian.PutUint32(sqe[24:], uint32(len(b)))
	binary.NativeEndian.PutUint32(r.sq[r.array+4*slot:], slot)
	r.n++
	binary.NativeEndian.PutUint32(r.sq[r.tail:], r.n)
	completed := binary.NativeEndian.Uint32(r.cq[r.head:])
	// A signal ends the wait early, and those of the Go runtime come at any time.
	for submit := uintptr(1); atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.cq[r.done]))) == completed; {
		n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, 1, getEvents, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return fmt.Errorf("io_uring_enter: %w", errno)
		}
		if errno == 0 {
			submit -= n
		}
	}
	result := int32(binary.NativeEndian.Uint32(r.cq[r.results+16*(completed&(2*mask+1))+8:]))
	binary.NativeEndian.PutUint32(r.cq[r.head:], completed+1)
	if result != int32(len(b)) {
		return fmt.Errorf("io_uring: write gave %d", result)
	}
	return nil
}
