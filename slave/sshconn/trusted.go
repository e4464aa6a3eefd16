package sshconn

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file reads the files that decide whom this side trusts. One that another user may write would let that user decide.

// Bits of a mode that a file must not have.
const (
	othersWrite fs.FileMode = 0o022
	worldWrites fs.FileMode = 0o002
	othersRead  fs.FileMode = 0o077
)

// maxTrusted bounds what is read of one file, in bytes.
const maxTrusted = 16 << 20

// readTrusted reads a file whole. It refuses one that belongs to neither root nor this user, or has one of the forbidden mode
// bits. What it looks at is what it reads: both go through one descriptor.
func readTrusted(path string, forbidden fs.FileMode) ([]byte, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := trust(path, info, forbidden); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxTrusted+1))
	if err == nil && len(text) > maxTrusted {
		err = fmt.Errorf("%s is larger than %d MiB", path, maxTrusted>>20)
	}
	return text, err
}

// openRegular opens a file for reading, and never waits for the other end of a FIFO.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsDir() {
		_ = f.Close()
		return nil, &fs.PathError{Op: "read", Path: path, Err: syscall.EISDIR}
	}
	return f, nil
}

// trust looks at owner and mode. /etc/ssh is the system's: in a user namespace its owner may be somebody without a number.
func trust(path string, info fs.FileInfo, forbidden fs.FileMode) error {
	if info.Mode()&fs.ModeCharDevice != 0 {
		return nil // /dev/null, which everybody may write, and which says nothing
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	own := ok && (stat.Uid == 0 || int(stat.Uid) == os.Geteuid())
	if !own && !strings.HasPrefix(path, filepath.Dir(systemConfig)+"/") {
		return fmt.Errorf("%s belongs to another user, who could decide what it says; chown it", path)
	}
	if bad := info.Mode().Perm() & forbidden; bad != 0 {
		return fmt.Errorf("others may write %s (mode %04o); run: chmod go-w %s", path, info.Mode().Perm(), path)
	}
	return nil
}
