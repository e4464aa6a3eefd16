package fstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sftpServer is OpenSSH's, where Debian has it.
const sftpServer = "/usr/lib/openssh/sftp-server"

// Bindfs mounts the directory dir once more, at the new directory at, through FUSE: by a daemon that shows the inode numbers of what is
// behind it. It is unmounted at the end of the test, or by Unserve before that.
func Bindfs(t testing.TB, dir, at string) {
	t.Helper()
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "bindfs", dir, at)
	t.Cleanup(func() { unmount(t, at) })
}

// Unserve unmounts what Bindfs or Sshfs has mounted.
func Unserve(t testing.TB, at string) {
	t.Helper()
	if err := unix.Unmount(at, unix.UMOUNT_NOFOLLOW); err != nil {
		t.Fatalf("unmount %s: %v", at, err)
	}
}

// Sshfs mounts the directory dir with sshfs, over pipes to an sftp-server, at a new directory, which it returns. Its inode numbers are
// made up. It is unmounted at the end of the test.
func Sshfs(t testing.TB, dir string) string {
	t.Helper()
	path, err := lookup("sshfs")
	if err != nil || os.Geteuid() != 0 {
		t.Skipf("fstest: needs root, and sshfs: run integration/setup.sh")
	}
	at := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	server, client := exec.Command(sftpServer), exec.Command(path, "-f", "-o", "passive", ":"+dir, at)
	down, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	up, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	client.Stdin, client.Stdout = down.(*os.File), up.(*os.File)
	for _, c := range []*exec.Cmd{server, client} {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
	}
	// Both end once they hold the last ends of the pipes, and the mount is gone.
	down.Close()
	up.Close()
	t.Cleanup(func() { unmount(t, at); _ = client.Wait(); _ = server.Wait() })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		var fs unix.Statfs_t
		if err := unix.Statfs(at, &fs); err == nil && fs.Type == unix.FUSE_SUPER_MAGIC {
			return at
		}
		if time.Now().After(deadline) {
			t.Fatalf("sshfs has not mounted %s within a minute", at)
		}
	}
}
