package web

import (
	"net"
	"net/http"
	"sync"

	"georep/internal/web/listen"
)

// maxConnections bounds what clients may hold open together.
const maxConnections = 64

// guard lets through who may ask. It comes before everything.
func guard(d *listen.Door, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "+
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !d.Host(r.Host):
			http.Error(w, "this server answers for localhost alone: a proxy in front of it has to ask for that host", http.StatusMisdirectedRequest)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "there is nothing to change here", http.StatusMethodNotAllowed)
		case !d.Knows(tokenOf(r)):
			h.Set("WWW-Authenticate", `Basic realm="georep: any name, and the token as the password", charset="UTF-8"`)
			http.Error(w, "a token is needed: Authorization: Bearer TOKEN, or the token as a password", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// tokenOf is what a request knows: as a bearer's, or as a password, for browsers.
func tokenOf(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	const prefix = "Bearer "
	if v := r.Header.Get("Authorization"); len(v) > len(prefix) && v[:len(prefix)] == prefix {
		return v[len(prefix):]
	}
	return ""
}

// bounded is a listener that keeps newcomers waiting while there are too many.
type bounded struct {
	net.Listener
	free chan struct{}
	done chan struct{}
	once sync.Once
}

func newBounded(l net.Listener, most int) *bounded {
	return &bounded{Listener: l, free: make(chan struct{}, most), done: make(chan struct{})}
}

// Accept waits until there is room.
func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.free <- struct{}{}:
	case <-b.done:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.free
		return nil, err
	}
	return &counted{Conn: c, leave: func() { <-b.free }}, nil
}

// Close ends those that wait, too.
func (b *bounded) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.Listener.Close()
}

type counted struct {
	net.Conn
	once  sync.Once
	leave func()
}

// Close makes room for another one.
func (c *counted) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.leave)
	return err
}
