package agent

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Stdio takes the process's standard input and output for Serve, and puts standard error in the place of standard
// output, so that nothing that prints can get into the protocol. Closing it unblocks reading and writing, which closing
// os.Stdin does not. It is called once, by the agent's command; where it fails the streams are as they were.
func Stdio() (io.ReadWriteCloser, error) {
	in, err := pollable(unix.Stdin, "stdin")
	if err != nil {
		return nil, err
	}
	// What comes in bulk then wakes each end less often. Where a socket leads here, or no more is to be had, it stays as it is.
	_, _ = unix.FcntlInt(uintptr(unix.Stdin), unix.F_SETPIPE_SZ, stdinPipe())
	out, err := pollable(unix.Stdout, "stdout")
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	if err := unix.Dup3(unix.Stderr, unix.Stdout, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("redirect stdout: %w", err), in.Close(), out.Close())
	}
	return &pair{in: in, out: out}, nil
}

// stdinPipe is how much the pipe may hold that sshd writes to. All pipes of an ordinary user share 64 MiB (pipe-user-pages-soft
// in proc(5)), and beyond that new ones of any program get small.
func stdinPipe() int {
	if os.Geteuid() == 0 {
		return 1 << 20
	}
	return 256 << 10
}

// pollable opens a descriptor a second time for the runtime's poller. The runtime's poller is what
// lets Close end a read that waits.
func pollable(fd int, name string) (*os.File, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("dup %s: %w", name, err)
	}
	if err := unix.SetNonblock(own, true); err != nil {
		return nil, errors.Join(fmt.Errorf("make %s non-blocking: %w", name, err), unix.Close(own))
	}
	return os.NewFile(uintptr(own), name), nil
}

// pair is two one-way streams as one. Its descriptors can be handed to another process.
type pair struct{ in, out *os.File }

// Read reads from the one.
func (p *pair) Read(b []byte) (int, error) { return p.in.Read(b) }

// Write writes to the other.
func (p *pair) Write(b []byte) (int, error) { return p.out.Write(b) }

// Close closes both ways.
func (p *pair) Close() error { return errors.Join(p.out.Close(), p.in.Close()) }
