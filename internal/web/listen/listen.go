// Package listen says where the web server may listen, and opens that: a loopback address or a unix socket as it is, and any other
// address only with TLS, and with a token or client certificates.
package listen

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"georep/internal/private"
)

// Default is where the server listens where nobody says otherwise.
const Default = "127.0.0.1:9847"

// minToken is the least length of a token: what is shorter can be tried out.
const minToken = 16

// Options are what the operator says, as texts.
type Options struct {
	Listen    string // HOST:PORT or unix:/path
	TokenFile string // whose one line whoever asks must know
	TLSCert   string // files in PEM
	TLSKey    string
	ClientCA  string // certificates of clients must be signed by one of these
}

// Keys are the names of the options, as in a configuration file and on the command line.
func Keys() []string { return []string{"listen", "token-file", "tls-cert", "tls-key", "client-ca"} }

// Set sets the option of that name.
func (o *Options) Set(key, value string) {
	if p := o.field(key); p != nil {
		*p = value
	}
}

func (o *Options) field(key string) *string {
	switch key {
	case "listen":
		return &o.Listen
	case "token-file":
		return &o.TokenFile
	case "tls-cert":
		return &o.TLSCert
	case "tls-key":
		return &o.TLSKey
	case "client-ca":
		return &o.ClientCA
	}
	return nil
}

// Socket is the path of a unix socket; "" where it is another address.
func (o *Options) Socket() string {
	path, _ := strings.CutPrefix(o.Listen, "unix:")
	if path == o.Listen {
		return ""
	}
	return path
}

// Local tells whether only this host can reach it.
func (o *Options) Local() bool {
	if strings.HasPrefix(o.Listen, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Check says in one line what cannot be. It reads no file.
func (o *Options) Check() error {
	if o.Listen == "" {
		return errors.New("listen is empty: write an address such as " + Default + ", or unix:/run/georep/web.sock")
	}
	if strings.HasPrefix(o.Listen, "unix:") {
		if !filepath.IsAbs(o.Socket()) {
			return fmt.Errorf("listen %q has no absolute path: write unix:/run/georep/web.sock", o.Listen)
		}
	} else if err := checkAddress(o.Listen); err != nil {
		return err
	}
	switch {
	case (o.TLSCert == "") != (o.TLSKey == ""):
		return errors.New("tls-cert and tls-key go together: set both, or neither")
	case o.ClientCA != "" && o.TLSCert == "":
		return errors.New("client-ca needs TLS: set tls-cert and tls-key")
	case !o.Local() && o.TLSCert == "":
		return fmt.Errorf("listen %s can be reached by others, and has no TLS: set tls-cert and tls-key, and token-file or client-ca; "+
			"or listen on %s", o.Listen, Default)
	case !o.Local() && o.TokenFile == "" && o.ClientCA == "":
		return fmt.Errorf("listen %s can be reached by others, and has no authentication: set token-file or client-ca; or listen on %s",
			o.Listen, Default)
	}
	return nil
}

func checkAddress(listen string) error {
	_, port, err := net.SplitHostPort(listen)
	if err == nil {
		if n, nerr := strconv.Atoi(port); nerr != nil || n < 0 || n > 65535 {
			err = errors.New("bad port")
		}
	}
	if err != nil {
		return fmt.Errorf("listen %q is no address: write HOST:PORT, such as %s, or unix:/path", listen, Default)
	}
	return nil
}

// Files says what is wrong with the files that the options name.
func (o *Options) Files() error {
	if o.TokenFile != "" {
		if _, err := readToken(o.TokenFile); err != nil {
			return err
		}
	}
	_, err := o.tls()
	return err
}

// Door is where somebody may come in.
type Door struct {
	net.Listener
	local  bool
	socket bool
	config *tls.Config // nil without TLS
	token  []byte      // its hash; nil where none is asked for
	URL    string      // for people
}

// Open checks the options, reads the files and listens.
func Open(o Options) (*Door, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	d := &Door{local: o.Local(), socket: o.Socket() != ""}
	if o.TokenFile != "" {
		token, err := readToken(o.TokenFile)
		if err != nil {
			return nil, err
		}
		d.token = token
	}
	config, err := o.tls()
	if err != nil {
		return nil, err
	}
	if d.socket {
		d.Listener, err = openSocket(o.Socket())
	} else {
		d.Listener, err = net.Listen("tcp", o.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", o.Listen, err)
	}
	d.URL = "http://" + d.Addr().String() + "/"
	if config != nil {
		d.URL = "https://" + d.Addr().String() + "/"
		d.config = config
	}
	if d.socket {
		d.URL = o.Listen
	}
	return d, nil
}

// openSocket takes away what a server left that is gone. Only this user may connect.
func openSocket(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&fs.ModeSocket == 0 {
			return nil, errors.New("there is something else under that name: take it away, or listen elsewhere")
		}
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, errors.New("another server listens there")
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return private.Listen(path)
}

// readToken gives the hash of a token that nobody but its owner may read.
func readToken(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("token-file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("token-file %s can be read by others (mode %04o): chmod 600 %s", path, info.Mode().Perm(), path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("token-file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if len(token) < minToken || strings.ContainsAny(token, " \t\r\n") {
		return nil, fmt.Errorf("token-file %s has to hold one word of at least %d characters: openssl rand -hex 32 >%s", path, minToken, path)
	}
	sum := sha256.Sum256([]byte(token))
	return sum[:], nil
}

// Secure is the listener with TLS around it, where there is any. What wraps the connections themselves comes first.
func (d *Door) Secure(l net.Listener) net.Listener {
	if d.config == nil {
		return l
	}
	return tls.NewListener(l, d.config)
}

// Knows tells whether a token is the one that is asked for.
func (d *Door) Knows(token string) bool {
	sum := sha256.Sum256([]byte(token))
	return d.token == nil || subtle.ConstantTimeCompare(sum[:], d.token) == 1
}

// AsksToken tells whether one is needed.
func (d *Door) AsksToken() bool { return d.token != nil }

// Host tells whether a request for that host may be answered. A page of somebody else's, whose name was made to point to this host,
// would otherwise read what a browser here can reach (DNS rebinding). With TLS and a token, or a certificate, it cannot.
func (d *Door) Host(host string) bool {
	if !d.local || d.socket {
		return true
	}
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// tls is nil where there is none.
func (o *Options) tls() (*tls.Config, error) {
	if o.TLSCert == "" {
		return nil, nil
	}
	c := &certificate{cert: o.TLSCert, key: o.TLSKey}
	if _, err := c.get(nil); err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"http/1.1"}}
	if o.ClientCA == "" {
		return config, nil
	}
	pem, err := os.ReadFile(o.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("client-ca: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("client-ca %s has no certificate in PEM", o.ClientCA)
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return config, nil
}

// certificate is read again when its file has changed: it is renewed while the server runs.
type certificate struct {
	cert, key string
	mu        sync.Mutex
	changed   time.Time
	now       *tls.Certificate
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.cert)
	if err == nil && c.now != nil && info.ModTime().Equal(c.changed) {
		return c.now, nil
	}
	var pair tls.Certificate
	if err == nil {
		pair, err = tls.LoadX509KeyPair(c.cert, c.key)
	}
	if err != nil {
		if c.now != nil { // half of it is written: the old one is good until then
			return c.now, nil
		}
		return nil, fmt.Errorf("tls-cert and tls-key: %w", err)
	}
	c.now, c.changed = &pair, info.ModTime()
	return c.now, nil
}
