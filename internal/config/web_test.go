package config

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestWeb(t *testing.T) {
	for text, want := range map[string]string{
		"[web]\n": "",
		"[web]\nlisten = '0.0.0.0:1'\ntls-cert='c'\ntls-key='k'\ntoken-file='t'\n": "",
		"[web]\nlisten = '0.0.0.0:1'\n":                                            "georep.toml:1: listen 0.0.0.0:1 can be reached by others",
		"[web]\nlisten = 9847\n":                                                   "georep.toml:2: listen is not text",
		"[web]\ntoken = 'x'\n":                                                     "georep.toml:2: unknown key token",
		"[web]\ntls-crt = 'x'\n":                                                   "did you mean tls-cert?",
		"[[web]]\n":                                                                "did you mean [web]?",
		"web.listen = 'x'\n":                                                       "write it as a table of its own",
		"[web]\nlisten='localhost'\n":                                              "is no address",
		"[defaults]\n[web]\ntls-cert='x'\n":                                        "georep.toml:2: tls-cert and tls-key go together",
		"include='*.inc'\n[web]\nlisten='[::1]:1'":                                 "web is there already",
	} {
		files := map[string]string{"georep.toml": text}
		if strings.Contains(text, "include") {
			files["a.inc"] = "[web]\n"
		}
		dir := write(t, files)
		got, err := Load(filepath.Join(dir, "georep.toml"), nil)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(strings.ReplaceAll(err.Error(), "[web] is", "web is"), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if err == nil && (got.Web == nil || got.Web.Listen == "" || got.Web.TLSCert != "" && got.Web.TLSCert != filepath.Join(dir, "c")) {
			t.Errorf("%q: %+v", text, got.Web)
		}
		if err == nil && got.Web.TLSCert != "" && len(got.Missing()) != 1 {
			t.Errorf("files that are not there are no trouble: %v", got.Missing())
		}
	}
}
