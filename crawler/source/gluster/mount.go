package gluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// Mount is a private mount of a volume, by which its own xtimes can be read. Its methods may be called from any goroutine, but Unmount.
type Mount struct {
	// Path is where it is mounted, Volume the name of the volume.
	Path, Volume string
	// ID is the volume's, which is in the names of its xtimes. Mark is when indexing was switched on for it.
	ID   xtime.UUID
	Mark xtime.Time

	pidFile, log string
}

// The directory of a mount holds these: where it is mounted, the number of the client's process, and its log.
const (
	mountPoint = "mnt"
	pidFile    = "pid"
	logFile    = "log"
)

// pollEvery is how often a mount that is coming up or going away is looked at.
const pollEvery = 20 * time.Millisecond

// Attach mounts a volume in the directory dir, which must be there and is the caller's: there lie the mount, a log and the number of its
// process. hosts are asked in turn for what the volume is made of. The mount outlives this process, until Unmount. An error says what is
// missing of the volume or of this host, and the command that helps; nothing is left mounted then.
func Attach(ctx context.Context, dir, volume string, hosts ...string) (*Mount, error) {
	client, err := exec.LookPath("glusterfs")
	if err != nil {
		return nil, fmt.Errorf("mount the volume %s: GlusterFS's client is missing on this host: install glusterfs-client (Debian) or "+
			"glusterfs-fuse (Fedora, RHEL)", volume)
	}
	m := &Mount{Path: filepath.Join(dir, mountPoint), Volume: volume, pidFile: filepath.Join(dir, pidFile), log: filepath.Join(dir, logFile)}
	if err := os.Mkdir(m.Path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("mount the volume %s: %w", volume, err)
	}
	// It goes to the background once it has mounted, and has nothing of ours open then.
	cmd := exec.CommandContext(ctx, client, m.options(hosts)...)
	err = cmd.Run()
	if err == nil {
		err = m.comesUp(ctx)
	}
	if err != nil {
		err = fmt.Errorf("mount the volume %s of %s: %w%s", volume, strings.Join(hosts, ", "), err, m.lastError())
	} else {
		err = m.look()
	}
	if err != nil {
		// A client that fails may have left the mount of a moment before behind.
		return nil, errors.Join(err, m.Unmount())
	}
	return m, nil
}

// options: the client's number makes the xtimes readable, and every cache is off that would show old content beside a new xtime. A
// writer whose clock is late leaves the times and the size of a file as they were, and those caches go by these.
func (m *Mount) options(hosts []string) (all []string) {
	for _, host := range hosts {
		all = append(all, "--volfile-server="+host)
	}
	return append(all, "--volfile-id="+m.Volume, "--client-pid=-1", "--aux-gfid-mount", "--acl", "--capability", "--process-name=fuse",
		"--attribute-timeout=0", "--entry-timeout=0", "--direct-io-mode=enable", "--xlator-option=*-md-cache.md-cache-timeout=0",
		"--xlator-option=*-quick-read.max-file-size=0", "--pid-file="+m.pidFile, "--log-file="+m.log, m.Path)
}

// attachTime is how long a volume may take until its root can be seen.
const attachTime = 30 * time.Second

// comesUp waits until the root can be seen. The client goes to the background before it has met a brick, and until then the directory
// below the mount shows, or nothing answers.
func (m *Mount) comesUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	for {
		var fs unix.Statfs_t
		err := unix.Statfs(m.Path, &fs)
		if err == nil && fs.Type != unix.FUSE_SUPER_MAGIC {
			err = errors.New("it is not mounted")
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pollEvery):
		}
	}
}

// lastError is what the client's log says last of an error, for people; "" if there is none.
func (m *Mount) lastError() string {
	text, err := os.ReadFile(m.log)
	if err != nil {
		return ""
	}
	last := ""
	for line := range strings.Lines(string(text)) {
		// [time] E [MSGID: n] [where] 0-name: what
		if _, what, ok := strings.Cut(line, "] E ["); ok {
			_, what, _ = strings.Cut(what, ": ")
			last = what
		}
	}
	if last == "" {
		return ""
	}
	return " (its log says: " + strings.TrimSpace(last) + ")"
}

// volumeMark is the xattr of the root that has the volume's id and mark. To read it also has the mount take the latest xtime that the
// bricks have of a directory, until the set of bricks changes.
const volumeMark = "trusted.glusterfs.volume-mark"

// markSize is the length of a volume mark: the version, the id, an error, and a time.
const markSize = 2 + 16 + 1 + xtime.Size

// look reads the volume mark, and refuses what cannot be a master.
func (m *Mount) look() error {
	if _, err := os.Lstat(m.graph(m.Volume + "-shard")); err == nil {
		return fmt.Errorf("the volume %s cannot be a master: it is sharded, so that its xtimes do not tell which file has changed (gluster volume "+
			"get %s features.shard)", m.Volume, m.Volume)
	}
	var mark [markSize + 1]byte
	n, err := unix.Getxattr(m.Path, volumeMark, mark[:])
	if errors.Is(err, unix.ENODATA) {
		return fmt.Errorf("the volume %s cannot be a master yet: it keeps no xtimes; run \"gluster volume set %s geo-replication.indexing on\"",
			m.Volume, m.Volume)
	}
	if err != nil {
		return fmt.Errorf("read the volume mark of %s: %w", m.Volume, err)
	}
	id, at, err := parseMark(mark[:n])
	if err != nil {
		return fmt.Errorf("read the volume mark of %s: %w", m.Volume, err)
	}
	m.ID, m.Mark = id, at
	return nil
}

// parseMark reads a volume mark of version 1: two bytes of version, the volume's id, an errno, and the time as an xtime has it. All of them
// come from bricks, in the order of the network.
func parseMark(b []byte) (id xtime.UUID, at xtime.Time, err error) {
	if len(b) != markSize || b[0] != 1 {
		return id, 0, fmt.Errorf("it has %d bytes, of version %x: this version of GlusterFS is not known", len(b), b[:min(len(b), 2)])
	}
	if b[18] != 0 {
		return id, 0, fmt.Errorf("a brick could not tell it: %w", unix.Errno(b[18]))
	}
	at, err = xtime.Parse(b[19:])
	return xtime.UUID(b[2:18]), at, err
}

// graph is where the client shows the state of one of the layers that the mount is made of.
func (m *Mount) graph(layer string) string {
	return filepath.Join(m.Path, ".meta/graphs/active", layer)
}

// Open opens the directory dir of the volume, "" for all of it. The caller closes it. It is good until the volume is unmounted, and gives
// ENOTCONN after that.
func (m *Mount) Open(dir string) (*beneath.Dir, error) {
	root, err := beneath.OpenRoot(m.Path, true)
	if err != nil || dir == "" {
		return root, err
	}
	defer root.Close()
	return root.OpenDir(dir)
}

// Unmount takes the mount away, from under whoever uses it, and has its process end. It may be called again, and is nothing then. The
// directory of the mount, with the log, stays the caller's.
func (m *Mount) Unmount() error {
	err := unix.Unmount(m.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = nil // it is not mounted
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", m.Path, err)
	}
	text, err := os.ReadFile(m.pidFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("end the mount of %s: %w", m.Volume, err)
	}
	// The number may be another process's by now, also of a mount that was made here later.
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil || !m.serves(pid) {
		return nil // it has ended
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end the mount of %s: %w", m.Volume, err)
	}
	return nil
}

// serves tells whether a process is the one that serves this mount, and no other that has its number now.
func (m *Mount) serves(pid int) bool {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(args, append([]byte(m.Path), 0))
}
