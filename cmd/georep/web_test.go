package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWebRefuses(t *testing.T) {
	state := t.TempDir()
	for line, word := range map[string]string{
		"web x":                      "no arguments",
		"web --listen 0.0.0.0:1":     "has no TLS",
		"web --listen 9847":          "no address",
		"web --tls-cert x":           "go together",
		"web --listen unix:relative": "absolute",
	} {
		georep(t, state, strings.Fields(line)...).check(t, exitUsage, word)
	}
	georep(t, state, "web", "--listen", "127.0.0.1:0", "--token-file", "/nonexistent").check(t, exitFailed, "token-file", "/nonexistent")
}

// TestWebOfTheService: the service serves what its configuration file says, and takes the socket away when it ends.
func TestWebOfTheService(t *testing.T) {
	dir := t.TempDir()
	socket, config := filepath.Join(dir, "web.sock"), filepath.Join(dir, "georep.toml")
	if err := os.WriteFile(config, []byte("[web]\nlisten = \"unix:"+socket+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan int)
	var out, errs strings.Builder
	go func() {
		ended <- run(ctx, []string{"georep", "--state-dir", filepath.Join(dir, "state"), "run", "--config", config}, &out, &errs)
	}()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	text := ""
	for end := time.Now().Add(time.Minute); text == ""; time.Sleep(10 * time.Millisecond) {
		if r, err := c.Get("http://georep/healthz"); err == nil {
			b, _ := io.ReadAll(r.Body)
			r.Body.Close()
			text = string(b)
		} else if time.Now().After(end) {
			cancel()
			t.Fatalf("%v; exit code %d, %s", err, <-ended, errs.String())
		}
	}
	cancel()
	if code := <-ended; code != exitDone || text != "ok: 0 sessions\n" {
		t.Errorf("exit code %d, %q\n%s", code, text, errs.String())
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left")
	}
}
