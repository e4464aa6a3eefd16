package web

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"time"

	"georep/internal/web/listen"
)

// How long what may take. A stream of events sets its own.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10
	farewell      = 3 * time.Second
)

// server answers requests.
type server struct {
	o        Options
	source   *source
	recorder *recorder
	hub      *hub
	pages    *pages
}

func newServer(o Options) (*server, error) {
	s := &server{o: o, source: newSource(&o)}
	s.recorder = newRecorder(s.source, o.Log)
	s.hub = newHub(s.source)
	var err error
	s.pages, err = newPages()
	return s, err
}

// Run serves through the door, which it closes, and records histories, until ctx ends. Then it returns nil.
func Run(ctx context.Context, o Options, d *listen.Door) error {
	s, err := newServer(o)
	if err != nil {
		d.Close()
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hs := &http.Server{Handler: guard(d, s.routes()), ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, ErrorLog: log.New(debugLog{o}, "", 0),
		BaseContext: func(net.Listener) context.Context { return ctx }} // streams end with it
	served := make(chan error, 1)
	go func() { served <- hs.Serve(d.Secure(newBounded(d.Listener, maxConnections))) }()
	recorded := make(chan struct{})
	go func() { s.recorder.run(ctx); close(recorded) }()
	o.Log.Info().Str("at", d.URL).Msg("the web server listens")
	select {
	case err = <-served:
	case <-ctx.Done():
		patient, end := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		_ = hs.Shutdown(patient) // who is still there then is cut off
		end()
		_ = hs.Close()
		err = <-served
	}
	cancel()
	<-recorded
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// debugLog takes what net/http says of clients that make mistakes.
type debugLog struct{ o Options }

func (l debugLog) Write(b []byte) (int, error) {
	l.o.Log.Debug().Msg(string(b))
	return len(b), nil
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", s.list)
	mux.HandleFunc("/session/{id}", s.one)
	mux.HandleFunc("/static/{name}", s.static)
	mux.Handle("/metrics", s.metrics())
	mux.HandleFunc("/healthz", s.healthz)
	mux.HandleFunc("/api/v1/sessions", s.apiList)
	mux.HandleFunc("/api/v1/sessions/{id}", s.apiOne)
	mux.HandleFunc("/api/v1/events", s.events)
	return mux
}
