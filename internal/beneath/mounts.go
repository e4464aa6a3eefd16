package beneath

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MountTable is the kernel's table of the mounts that this process sees. One goroutine may use it at a time. The descriptor is
// no os.File: the runtime would poll it too, and whoever polls first is the only one to be told of a change.
type MountTable struct{ fd int }

const mountTable = "/proc/self/mountinfo"

// OpenMountTable opens the table. The caller closes it.
func OpenMountTable() (*MountTable, error) {
	fd, err := retryInt(func() (int, error) { return unix.Open(mountTable, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, fmt.Errorf("open the table of mounts: %w", err)
	}
	return &MountTable{fd}, nil
}

// Close gives the descriptor back.
func (t *MountTable) Close() error { return unix.Close(t.fd) }

// Changed tells whether anything was mounted or unmounted since the table was opened, or since Changed or Wait told so last.
func (t *MountTable) Changed() bool {
	fds := []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLPRI}}
	_, err := retryInt(func() (int, error) { return unix.Poll(fds, 0) })
	return err != nil || fds[0].Revents&(unix.POLLPRI|unix.POLLERR) != 0
}

// Wait waits until something is mounted or unmounted, or until ctx ends, which is then the error.
func (t *MountTable) Wait(ctx context.Context) error {
	end, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("wait for mounts: %w", err)
	}
	wake := func() { _, _ = unix.Write(end, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { wake(); close(ended) })
	defer func() {
		if !stop() {
			<-ended // it writes to the descriptor
		}
		unix.Close(end)
	}()
	fds := []unix.PollFd{{Fd: int32(t.fd), Events: unix.POLLPRI}, {Fd: int32(end), Events: unix.POLLIN}}
	if _, err := retryInt(func() (int, error) { return unix.Poll(fds, -1) }); err != nil {
		return fmt.Errorf("wait for mounts: %w", err)
	}
	return ctx.Err()
}

// Below lists what something is mounted on directly below d, each once, as paths below d. What is mounted within another
// mount is not among them.
func (t *MountTable) Below(d *Dir) ([]string, error) {
	st, err := d.Stat("")
	if err != nil {
		return nil, err
	}
	top, err := os.Readlink(d.proc)
	if err != nil {
		return nil, fmt.Errorf("find the path of an open directory: %w", err)
	}
	table, err := os.ReadFile(mountTable)
	if err != nil {
		return nil, fmt.Errorf("read the table of mounts: %w", err)
	}
	return mountsBelow(table, st.MountID, strings.TrimSuffix(top, "/")+"/"), nil
}

// mountsBelow reads lines as "36 35 98:0 /root /mount/point rw,noatime - ext3 /dev/root rw": a mount's number, that of the
// mount which it stands on, its device, and after another path the one where it stands.
func mountsBelow(table []byte, on uint64, top string) []string {
	var out []string
	parent := strconv.FormatUint(on, 10)
	for line := range bytes.Lines(table) {
		fields := bytes.SplitN(line, []byte{' '}, 6)
		if len(fields) < 6 || string(fields[1]) != parent {
			continue
		}
		path, below := strings.CutPrefix(unescape(string(fields[4])), top)
		if below && ValidPath(path) && path != "" && !slices.Contains(out, path) {
			out = append(out, path)
		}
	}
	return out
}

// unescape reads the kernel's \ooo for white space and the backslash.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\`)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		c, err := strconv.ParseUint(after[:min(3, len(after))], 8, 8)
		if err != nil {
			b.WriteByte('\\')
			s = after
			continue
		}
		b.WriteByte(byte(c))
		s = after[3:]
	}
}

// Bare opens d as it is beneath everything that is mounted below it. It needs CAP_SYS_ADMIN. The caller closes the result,
// soon: the file system cannot be unmounted before.
func (d *Dir) Bare() (*Dir, error) {
	if err := d.ask("open tree", ""); err != nil {
		return nil, pathError("open tree", "", err)
	}
	fd, err := retryInt(func() (int, error) {
		return unix.OpenTree(d.fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	})
	if err != nil {
		return nil, pathError("open tree", "", err)
	}
	return d.opened(fd), nil
}

// Covered tells whether something is mounted on the entry name. It never asks the file system that is mounted there, which
// may not answer. d must come from a root that was opened with oneFS.
func (d *Dir) Covered(name string) bool {
	fd, err := d.openat2(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err == nil {
		unix.Close(fd)
	}
	return err == unix.EXDEV
}
