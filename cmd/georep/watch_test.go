package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	built "georep/integration/harness/program"
	"georep/internal/screen"
	"georep/status"
	"georep/volume"
)

// pseudo is a terminal without a screen, with what a program writes to it.
type pseudo struct {
	*testing.T
	master, slave *os.File
	said          chan string
	text          string
}

func newPseudo(t *testing.T) *pseudo {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	p := &pseudo{T: t, master: master, slave: slave, said: make(chan string, 100)}
	p.size(24, 80)
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := p.master.Read(b)
			if err != nil {
				close(p.said)
				return
			}
			p.said <- string(b[:n])
		}
	}()
	return p
}

func (p *pseudo) size(rows, columns uint16) {
	p.Helper()
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		p.Fatal(err)
	}
}

// until reads until the words come, and gives what was before them.
func (p *pseudo) until(words string) (before string) {
	p.Helper()
	patience := time.After(time.Minute)
	for !strings.Contains(p.text, words) {
		select {
		case s, open := <-p.said:
			if !open {
				p.Fatalf("%q does not come: %q", words, p.text)
			}
			p.text += s
		case <-patience:
			p.Fatalf("%q does not come: %q", words, p.text)
		}
	}
	before, p.text, _ = strings.Cut(p.text, words)
	return before
}

// longest is the width of the longest line of the next whole screen.
func (p *pseudo) longest() int {
	p.Helper()
	p.until("\x1b[H")
	body := p.until("\x1b[J")
	n := 0
	for _, line := range strings.Split(regexp.MustCompile("\x1b\\[[0-9;]*[a-zA-Z]").ReplaceAllString(body, ""), "\n") {
		n = max(n, len([]rune(strings.Trim(line, "\r"))))
	}
	return n
}

// TestWatch: a screen that fits, follows the window's size, and gives the terminal back when it is interrupted, and for as long as it is
// stopped.
func TestWatch(t *testing.T) {
	state := t.TempDir()
	good := status.Status{State: status.Active, LastSynced: status.Time{Time: time.Now()}, LagSeconds: 3}
	bad := good
	bad.State, bad.Reason = status.Faulty, strings.Repeat("no route to host ", 20)
	registered(t, state, good)
	registered(t, state, bad)
	p := newPseudo(t)
	program := filepath.Join(t.TempDir(), "georep")
	built.Link(t, program)
	cmd := exec.Command(program, "--state-dir", state, "status", "--watch")
	cmd.Env = append(os.Environ(), "TERM=xterm", "LC_ALL=C.UTF-8", "NO_COLOR=")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.slave, p.slave, p.slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	p.until(screen.Enter)
	p.until("1 critical")
	p.until("\x1b[31m")
	p.until("Faulty")
	p.until("\x1b[J")
	if n := p.longest(); n > 80 || n < 70 {
		t.Errorf("a line has %d columns, of 80", n)
	}
	p.size(10, 50)
	if err := cmd.Process.Signal(unix.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); p.longest() > 50; {
		if time.Now().After(end) {
			t.Fatal("it does not follow the window")
		}
	}
	if err := cmd.Process.Signal(unix.SIGTSTP); err != nil {
		t.Fatal(err)
	}
	p.until(screen.Leave)
	if err := cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for stopped := true; stopped; { // the signal may come before it has stopped
		select {
		case s := <-p.said:
			p.text += s
			stopped = !strings.Contains(p.text, screen.Enter)
		case <-time.After(100 * time.Millisecond):
			if err := cmd.Process.Signal(unix.SIGCONT); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, sig := range []os.Signal{unix.SIGINT, unix.SIGCONT} { // where the last one came before the stop
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	p.until(screen.Leave)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v", err)
	}
}

// TestWatchSaysWhatIsMissing: a session whose file is damaged is not left out without a word, and the others are shown.
func TestWatchSaysWhatIsMissing(t *testing.T) {
	state := t.TempDir()
	registered(t, state, status.Status{State: status.Active, LastSynced: status.Time{Time: time.Now()}})
	damaged := filepath.Join(state, "sessions", "damaged")
	if err := os.Mkdir(damaged, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(damaged, "session.toml"), []byte("x = ["), 0o600); err != nil {
		t.Fatal(err)
	}
	store, err := volume.OpenStore(state)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "no terminal"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	text, err := new(env).drawn(&screen.Screen{}, selection{store: store}, out)
	if err != nil || !strings.Contains(text, "Active") || !strings.Contains(text, "\r\nread "+state[:20]) {
		t.Errorf("%v: %q", err, text)
	}
}

// TestWatchPlain: where there is no terminal there are tables, without colours, as before.
func TestWatchPlain(t *testing.T) {
	state := t.TempDir()
	registered(t, state, status.Status{State: status.Active})
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan int)
	go func() {
		done <- run(ctx, []string{"georep", "--state-dir", state, "status", "--watch"}, w, w)
		w.Close()
	}()
	b := make([]byte, 64<<10)
	n, err := r.Read(b)
	cancel()
	go io.Copy(io.Discard, r)
	if code := <-done; code != exitDone || err != nil || strings.Contains(string(b[:n]), "\x1b") || !strings.HasPrefix(string(b[:n]), "MASTER ") {
		t.Errorf("exit code %d, %v: %q", code, err, b[:n])
	}
}
