// Package private opens unix sockets that nobody but this user may connect to.
package private

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen opens one at path. The mode that the socket has before it gets its name is that of the file. A umask would be the whole
// process's instead: what other goroutines make meanwhile, and what processes make that are started meanwhile, would have it too.
func Listen(path string) (net.Listener, error) {
	l := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	return l.Listen(context.Background(), "unix", path)
}
