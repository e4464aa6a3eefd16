package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"georep/integration/harness/proxy"
	"georep/internal/sshdtest"
	"georep/status"
)

// TestSFTPFewSessions: a server that allows fewer sessions on a connection than are wanted is served over those that there
// are, and read back.
func TestSFTPFewSessions(t *testing.T) {
	for _, most := range []string{"1", "3"} {
		t.Run(most, func(t *testing.T) {
			master, slave := few(t, 40, 10), t.TempDir()
			s := sftpSession(t, master, slave, append(sftpServers()["OpenSSH"], sshdtest.Config("MaxSessions "+most)))
			s.must(s.run(append([]string{"sync", "data", s.spec}, s.sftpFlags()...)...))
			if err := sftpEqual(master, slave, true); err != nil {
				t.Fatal(err)
			}
			s.must(s.run(append([]string{"restore", s.spec, filepath.Join(t.TempDir(), "copy")}, s.sftpFlags()...)...))
		})
	}
}

// TestSFTPReadOnlyServer: a server that lets nobody write says no more than that it is not permitted.
func TestSFTPReadOnlyServer(t *testing.T) {
	slave := t.TempDir()
	s := sftpSession(t, few(t, 1, 1), slave, []sshdtest.Option{sshdtest.Config("ForceCommand internal-sftp -R")})
	r := s.run(append([]string{"sync", "data", s.spec}, s.sftpFlags()...)...)
	if r.code != 1 || !strings.Contains(r.stderr, "must be allowed to write") || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("exit code %d, %s", r.code, r.stderr)
	}
	if list, err := os.ReadDir(slave); err != nil || len(list) != 0 {
		t.Errorf("left there: %v, %v", list, err)
	}
}

// noted tells whether a journal of an upload says of any part of it that it is there, durably: that is what goes on.
func (s *session) noted() bool {
	found := false
	list, _ := filepath.Glob(filepath.Join(s.slave, ".georep", "partial", "*.got"))
	for _, name := range list {
		st, err := os.Stat(name)
		found = found || err == nil && st.Size() > 24 // its header
	}
	return found
}

// TestSFTPLargeFileGoesOn: a file whose sending was cut goes on where it was. What was on its way, and what had come since the
// last note of what is there, is sent again. A move sends nothing of it.
func TestSFTPLargeFileGoesOn(t *testing.T) {
	// The first note is made after 16 MiB; where the machine is slow, much more has come by then.
	const size, again = 96 << 20, 64 << 20
	master, slave := few(t, 1, 1), t.TempDir()
	s := sftpSession(t, master, slave, sftpServers()["OpenSSH"])
	p := s.through(proxy.Options{Rate: 30 << 20})
	s.spec = fmt.Sprintf("sftp://%s:%d%s", s.sshd.Host, s.port, slave)
	incompressible(t, filepath.Join(master, "large"), size, 1)
	s.must(s.run(append([]string{"start", "data", s.spec, "--retry-max", "1s"}, s.sftpFlags()...)...))
	for deadline := time.Now().Add(patience); s.received() < size/3 || !s.noted(); pause(t, 5*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("only %d bytes arrived", s.received())
		}
	}
	p.Cut()
	now := time.Now()
	s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(now) })
	if n := p.Stats().BytesUp; n < size || n > size+again {
		t.Errorf("%d bytes were sent for %d", n, size)
	}
	if err := sftpEqual(master, slave, true); err != nil {
		t.Fatal(err)
	}
	before := p.Stats().BytesUp
	if err := errors.Join(os.Mkdir(filepath.Join(master, "d"), 0o755),
		os.Rename(filepath.Join(master, "large"), filepath.Join(master, "d", "moved"))); err != nil {
		t.Fatal(err)
	}
	now = time.Now()
	s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(now) })
	if n := p.Stats().BytesUp - before; n > 1<<20 {
		t.Errorf("%d bytes were sent for a move", n)
	}
	if err := sftpEqual(master, slave, true); err != nil {
		t.Fatal(err)
	}
}
