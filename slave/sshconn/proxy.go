package sshconn

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// proxy is a running ProxyCommand; its standard input and output are one socket, of which it holds
// the other end. Its end is noticed as the end of the stream.
type proxy struct {
	net.Conn
	cmd  *exec.Cmd
	said *tail // its standard error
	once sync.Once
	err  error
}

// proxyGrace is how long a process that left the command's group may hold its standard error open.
const proxyGrace = time.Second

// startProxy runs a ProxyCommand in a shell and a process group of its own. The command comes from
// the user's own ssh_config, whose permissions were checked. It runs until Close.
func startProxy(command string) (*proxy, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket for ProxyCommand: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "proxy")
	defer theirs.Close()
	ours := os.NewFile(uintptr(fds[0]), "proxy")
	defer ours.Close()
	conn, err := net.FileConn(ours) // a duplicate
	if err != nil {
		return nil, fmt.Errorf("make a socket for ProxyCommand: %w", err)
	}
	cmd := exec.Command("/bin/sh", "-c", "exec "+command)
	said := new(tail)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, said
	cmd.WaitDelay = proxyGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("run ProxyCommand: %w", err)
	}
	return &proxy{Conn: conn, cmd: cmd, said: said}, nil
}

// Close ends the command and all that it started, and waits for it.
func (p *proxy) Close() error {
	p.once.Do(func() {
		p.err = p.Conn.Close()
		// Its group is gone when it ended by itself.
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		_ = p.cmd.Wait()
	})
	return p.err
}
