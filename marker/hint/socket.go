package hint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// place is the directory of a socket, held open: the address of a socket has 108 bytes, and state directories may lie
// deeper, so it is reached through /proc/self/fd.
type place struct{ dir *os.File }

// openPlace opens dir for its address alone; it needs no right to read it. The caller closes
// place.dir.
func openPlace(dir string) (place, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return place{}, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	return place{os.NewFile(uintptr(fd), dir)}, nil
}

// address is shorter than any limit, and valid as long as the directory is open.
func (p place) address() string { return "/proc/self/fd/" + strconv.Itoa(int(p.dir.Fd())) + "/" + File }

// remove takes the socket away, whoever left it there.
func (p place) remove() error {
	err := unix.Unlinkat(int(p.dir.Fd()), File, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// listen makes the socket. Its mode is set before it has a name, so that nobody else ever gets in.
func (p place) listen() (*net.UnixListener, error) {
	if err := p.remove(); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var mode error
		err := c.Control(func(fd uintptr) { mode = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, mode)
	}}
	l, err := config.Listen(context.Background(), "unix", p.address())
	if err != nil {
		return nil, err
	}
	unixl := l.(*net.UnixListener)
	unixl.SetUnlinkOnClose(false) // by that address it could be another directory's by then
	return unixl, nil
}

// ours tells whether the process at the other end runs as the same user.
func ours(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var failure error
	err = raw.Control(func(fd uintptr) { cred, failure = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, failure); err != nil {
		return err
	}
	if int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d is at the other end", cred.Uid)
	}
	return nil
}
