package service

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"georep/internal/private"
	"georep/monitor"
	"georep/status"
	"georep/volume"
)

// Commands talk to the service by HTTP over a Unix socket that only the user it runs as may use:
//
//	POST /v1/start {"master": "data", "slave": "backup::copy"}   starts a session's monitor; it must be in the registry
//	POST /v1/approve {"master": ..., "slave": ..., "id": ...}     lets a purge go that was refused, by its ID, once
//
// The answer is 204, or a status above 399 with the reason as JSON, {"error": "..."}.

// wish is the body of a request, and refusal that of an answer.
type (
	wish struct {
		Master string `json:"master"`
		Slave  string `json:"slave"`
		ID     string `json:"id,omitempty"` // of a purge
	}
	refusal struct {
		Error   string `json:"error"`
		Running bool   `json:"running,omitempty"` // the session has a process already that the service did not start
		Pid     int    `json:"pid,omitempty"`     // of that, where it is known
		Away    bool   `json:"away,omitempty"`    // the service is ending
	}
)

// maxWish bounds a request, in bytes.
const maxWish = 64 << 10

// listen serves commands until the returned function is called. The socket is made anew, since one
// that a killed service left would refuse connections.
func (s *service) listen() (stop func(), err error) {
	path := Socket(s.o.Store)
	// Whoever left it there is gone: the lock is ours.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := private.Listen(path)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/start", s.handleStart)
	mux.HandleFunc("POST /v1/approve", s.handleApprove)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) })
	return func() {
		_ = server.Close()
		wg.Wait()
	}, nil
}

// handleStart waits until the loop has started the monitor, but not until the slave is reached.
func (s *service) handleStart(w http.ResponseWriter, r *http.Request) {
	want, slave, err := readWish(r)
	if err == nil {
		err = s.order(r.Context(), key(&volume.Session{Master: want.Master, Slave: slave}))
	}
	answer(w, err)
}

// handleApprove changes the registry; the session's next crawl finds it there.
func (s *service) handleApprove(w http.ResponseWriter, r *http.Request) {
	want, slave, err := readWish(r)
	if err == nil {
		err = s.o.Store.ApprovePurge(want.Master, slave, want.ID)
	}
	answer(w, err)
}

// readWish reads the body, within its bound.
func readWish(r *http.Request) (want wish, slave volume.Slave, err error) {
	if err := json.NewDecoder(io.LimitReader(r.Body, maxWish)).Decode(&want); err != nil {
		return want, slave, fmt.Errorf("the request cannot be read: %w", err)
	}
	slave, err = volume.ParseSlave(want.Slave)
	return want, slave, err
}

// order hands an order to the loop, and waits until it is carried out.
func (s *service) order(ctx context.Context, key string) error {
	o := order{key: key, done: make(chan error, 1)}
	select {
	case s.orders <- o:
		return <-o.done
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answer says 204, or the reason.
func answer(w http.ResponseWriter, err error) {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	out := refusal{Error: err.Error()}
	var running *status.RunningError
	if errors.As(err, &running) {
		out.Running, out.Pid = true, running.Pid
	}
	out.Away = errors.Is(err, ErrAway)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusConflict)
	_ = json.NewEncoder(w).Encode(out)
}

// Client talks to the service of a state directory. It makes a connection for each request, and
// holds none.
type Client struct {
	http  http.Client
	store *volume.Store
}

// Dial finds the service of a state directory; nil where none runs.
func Dial(s *volume.Store) *Client {
	if running, err := volume.Locked(lockFile(s), volume.Shared); err != nil || !running {
		return nil
	}
	path := Socket(s)
	return &Client{store: s, http: http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}}
}

// comesUp is how long a monitor may take until it holds its pid file.
const comesUp = 20 * time.Second

// Start has the service start a session that the registry says is to run. It returns once the session's monitor runs.
func (c *Client) Start(ctx context.Context, s volume.Session) error {
	if err := c.post(ctx, "/v1/start", wish{Master: s.Master, Slave: s.Slave.String()}); err != nil {
		return err
	}
	files := c.store.Files(s.Master, s.Slave)
	ctx, cancel := context.WithTimeout(ctx, comesUp)
	defer cancel()
	if monitor.WaitUp(ctx, files) != nil {
		return fmt.Errorf("the session's monitor does not come up: see %s", files.Log)
	}
	return nil
}

// Approve lets a purge that a session was refused go, once, by its ID in the registry.
func (c *Client) Approve(ctx context.Context, s volume.Session, id string) error {
	return c.post(ctx, "/v1/approve", wish{Master: s.Master, Slave: s.Slave.String(), ID: id})
}

// Errors of the service come back as what they were, as far as a caller decides on them.
func (c *Client) post(ctx context.Context, path string, want wish) error {
	body, err := json.Marshal(want)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://georep"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return fmt.Errorf("%w (%s): %w", ErrAway, Socket(c.store), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < http.StatusBadRequest {
		return nil
	}
	var no refusal
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxWish)).Decode(&no); err != nil {
		return fmt.Errorf("ask the georep service: it answers %s", resp.Status)
	}
	switch {
	case no.Running:
		return &status.RunningError{Pid: no.Pid}
	case no.Away:
		return ErrAway
	}
	return fmt.Errorf("the georep service: %s", no.Error)
}
