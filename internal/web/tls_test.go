package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"georep/internal/web/listen"
)

// certificate makes one that signs itself, for a server and for a client, in two files.
func certificate(t *testing.T) (cert, key string, pair tls.Certificate) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if pair, err = tls.LoadX509KeyPair(cert, key); err != nil {
		t.Fatal(err)
	}
	return cert, key, pair
}

// TestClientCertificates: by TLS only who has a certificate that the operator trusts gets an answer, whatever host it asks for; and
// a certificate that is renewed is shown at the next connection.
func TestClientCertificates(t *testing.T) {
	x := newSite(t)
	cert, key, pair := certificate(t)
	ca, _, known := certificate(t)
	_, _, stranger := certificate(t)
	d, err := listen.Open(listen.Options{Listen: "0.0.0.0:0", TLSCert: cert, TLSKey: key, ClientCA: ca})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- Run(t.Context(), x.s.o, d) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	ask := func(client *tls.Certificate) (code int, shown []byte) {
		config := &tls.Config{InsecureSkipVerify: true}
		if client != nil {
			config.Certificates = []tls.Certificate{*client}
		}
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		r, err := http.NewRequest("GET", "https://"+d.Addr().String()+"/healthz", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "backup.example.org"
		a, err := c.Do(r)
		if err != nil {
			return 0, nil
		}
		defer a.Body.Close()
		return a.StatusCode, a.TLS.PeerCertificates[0].Raw
	}
	if code, shown := ask(&known); code != 200 || string(shown) != string(pair.Certificate[0]) {
		t.Errorf("who is known gets %d", code)
	}
	for name, client := range map[string]*tls.Certificate{"nobody": nil, "a stranger": &stranger} {
		if code, _ := ask(client); code != 0 {
			t.Errorf("%s gets %d", name, code)
		}
	}
	r, err := http.Get("http://" + d.Addr().String() + "/")
	if err == nil {
		r.Body.Close()
		if r.StatusCode == 200 {
			t.Error("there is an answer without TLS")
		}
	}
	newCert, newKey, renewed := certificate(t)
	for from, to := range map[string]string{newCert: cert, newKey: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	if code, shown := ask(&known); code != 200 || string(shown) != string(renewed.Certificate[0]) {
		t.Errorf("after it was renewed: %d", code)
	}
}
