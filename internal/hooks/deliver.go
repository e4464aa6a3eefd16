package hooks

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/events"
)

const (
	// timeout bounds one try.
	timeout = 30 * time.Second
	// maxAnswer is how much of a server's answer is read, and maxOutput how much of a command's is kept.
	maxAnswer = 64 << 10
	maxOutput = 500
	maxKey    = 4096
	hookPath  = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// run starts the command with the event on its standard input. It is killed, with all that it has
// started in its process group, when ctx ends. It gets the event and a few variables, and nothing
// of this process's environment or descriptors.
func (c *Config) run(ctx context.Context, body []byte, e *events.Event) error {
	if err := answers(c.Hook.Command[0]); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, c.Hook.Command[0], c.Hook.Command[1:]...)
	cmd.Dir, cmd.Stdin = "/", bytes.NewReader(body)
	cmd.Env = []string{hookPath, "LC_ALL=C.UTF-8", "GEOREP_KIND=" + string(e.Kind), "GEOREP_MASTER=" + e.Master, "GEOREP_SLAVE=" + e.Slave,
		"GEOREP_SEQ=" + strconv.FormatUint(e.Seq, 10)}
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	kill := func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.Cancel, cmd.WaitDelay = kill, time.Second
	err := cmd.Run()
	if err != nil && cmd.Process != nil {
		kill() // what it left behind: it is tried again, and that must not pile up
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well, and left something behind that keeps its output open
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err == nil {
		return nil
	}
	if text := strings.TrimSpace(string(out.end)); text != "" {
		return fmt.Errorf("%s: %w: %s", c.Hook.Command[0], err, text)
	}
	return fmt.Errorf("%s: %w", c.Hook.Command[0], err)
}

// answers returns once the program's file system does. Until the new process has its program, Go's
// runtime can stop no thread of this one for a collection of garbage, and all of it would stand
// still beside a dead NFS server. Here only the caller waits. The program may hang all the same
// once it runs; then the timeout ends it.
func answers(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s: it is no file that can be run", path)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil // it may be run all the same
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// tail keeps the end of what is written. It is written to by one goroutine, and read after that has
// ended.
type tail struct{ end []byte }

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.end = append(t.end, p[max(0, len(p)-maxOutput):]...)
	t.end = t.end[max(0, len(t.end)-maxOutput):]
	return len(p), nil
}

// client follows no redirect, and uses neither a proxy nor a connection twice.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: maxAnswer},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// post sends the event, signed where there is a key. Errors name the host and not the path, since
// an address may hold a secret.
func (c *Config) post(ctx context.Context, body []byte, e *events.Event) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Hook.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("hook-url cannot be used") // it was checked when it was set, and may hold a secret
	}
	where := req.URL.Scheme + "://" + req.URL.Host // the rest may let in whoever knows it
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "georep")
	req.Header.Set("X-Georep-Event", string(e.Kind))
	if c.Hook.KeyFile != "" {
		key, err := readKey(c.Hook.KeyFile)
		if err != nil {
			return err
		}
		mac := hmac.New(sha256.New, key)
		mac.Write(body)
		req.Header.Set("X-Georep-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	resp, err := client.Do(req)
	if err != nil {
		if of := (*url.Error)(nil); errors.As(err, &of) {
			err = of.Err
		}
		return fmt.Errorf("post to %s: %w", where, err)
	}
	defer resp.Body.Close()
	if _, err := io.CopyN(io.Discard, resp.Body, maxAnswer); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer of %s: %w", where, err)
	}
	switch {
	case resp.StatusCode/100 == 2:
		return nil
	case resp.StatusCode/100 == 3:
		return fmt.Errorf("%s answers %s: redirects are not followed; set hook-url to the address it leads to", where, resp.Status)
	}
	return fmt.Errorf("%s answers %s", where, resp.Status)
}

// readKey is what the file has, without the newline at its end. Nobody but its owner may read it.
func readKey(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("hook-key-file: %w", err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("hook-key-file %s: %w", path, err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("hook-key-file %s: not a regular file", path)
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return nil, fmt.Errorf("hook-key-file %s: it belongs to another user (uid %d)", path, st.Uid)
	case st.Mode&0o077 != 0:
		return nil, fmt.Errorf("hook-key-file %s: others than its owner may read or change it: chmod 600", path)
	}
	key, err := io.ReadAll(io.LimitReader(f, maxKey+1))
	if err != nil {
		return nil, fmt.Errorf("hook-key-file %s: %w", path, err)
	}
	key = bytes.TrimRight(key, "\r\n")
	if len(key) == 0 || len(key) > maxKey {
		return nil, fmt.Errorf("hook-key-file %s: a key has 1 to %d bytes", path, maxKey)
	}
	return key, nil
}
