package volume

import (
	"errors"
	"strings"
	"testing"
)

func TestParseSlave(t *testing.T) {
	for _, c := range []struct {
		in, canonical string
		want          Slave
	}{
		{"backup::data", "backup::data", Slave{Host: "backup", Volume: "data"}},
		{"bob@backup.example::data", "bob@backup.example::data", Slave{User: "bob", Host: "backup.example", Volume: "data"}},
		{"backup:/srv//data/", "backup:/srv/data", Slave{Host: "backup", Path: "/srv/data"}},
		{"backup:/srv/a::b@c", "backup:/srv/a::b@c", Slave{Host: "backup", Path: "/srv/a::b@c"}},
		{"backup:/a%20b", "backup:/a%20b", Slave{Host: "backup", Path: "/a%20b"}},
		{"backup:/ssh://x", "backup:/ssh:/x", Slave{Host: "backup", Path: "/ssh:/x"}},
		{"backup:/a\nb", "ssh://backup/a%0Ab", Slave{Host: "backup", Path: "/a\nb"}},
		{"backup:/a\xffb", "ssh://backup/a%FFb", Slave{Host: "backup", Path: "/a\xffb"}},
		{"backup:/donn\u00e9es", "backup:/donn\u00e9es", Slave{Host: "backup", Path: "/donn\u00e9es"}},
		{"ssh://backup/srv/a%20b", "backup:/srv/a b", Slave{Host: "backup", Path: "/srv/a b"}},
		{"ssh://bob@backup:2222/srv/a b", "ssh://bob@backup:2222/srv/a%20b",
			Slave{User: "bob", Host: "backup", Port: 2222, Path: "/srv/a b"}},
		{"ssh://[::1]:2222/x", "ssh://[::1]:2222/x", Slave{Host: "::1", Port: 2222, Path: "/x"}},
		{"[::1]::vol", "[::1]::vol", Slave{Host: "::1", Volume: "vol"}},
		{"bob@[0:0::1]:/path", "bob@[::1]:/path", Slave{User: "bob", Host: "::1", Path: "/path"}},
		{"[fe80::1%eth0]:/p", "[fe80::1%eth0]:/p", Slave{Host: "fe80::1%eth0", Path: "/p"}},
		{`CORP\bob@backup:/`, `CORP\bob@backup:/`, Slave{User: `CORP\bob`, Host: "backup", Path: "/"}},
		{"georep://backup/data", "georep://backup/data", Slave{Host: "backup", Volume: "data", Serve: true}},
		{"georep://bob@[::1]:9000/data", "georep://bob@[::1]:9000/data", Slave{User: "bob", Host: "::1", Port: 9000, Volume: "data", Serve: true}},
		{"georep://backup:8922/data", "georep://backup/data", Slave{Host: "backup", Volume: "data", Serve: true}},
		{"file:///srv/a%25", "file:///srv/a%25", Slave{Path: "/srv/a%"}},
		{"file://localhost/srv", "file:///srv", Slave{Path: "/srv"}},
		{"file:///donn\u00e9es/../x", "file:///x", Slave{Path: "/x"}},
	} {
		got, err := ParseSlave(c.in)
		if err != nil || got != c.want {
			t.Errorf("ParseSlave(%q) = %+v, %v; want %+v", c.in, got, err, c.want)
		}
		if got.String() != c.canonical {
			t.Errorf("ParseSlave(%q).String() = %q, want %q", c.in, got, c.canonical)
		}
	}
}

func TestParseSlaveRefuses(t *testing.T) {
	for _, c := range []struct{ in, why string }{
		{"", "host name"}, {"backup", "no volume or path"}, {"/srv/data", "file:///path"},
		{"backup:srv", "absolute"}, {"backup:", "absolute"}, {"backup::", "volume name"}, {"backup::a/b", "volume name"},
		{"backup::-x", "volume name"}, {"-oProxyCommand=x:/p", "host name"}, {"-l@backup:/p", "user name"},
		{"@backup:/p", "user name"}, {"a b@backup:/p", "user name"}, {"::vol", "host name"}, {"::1::vol", "host name"},
		{"bob@:/p", "host name"}, {"[::1:/p", "IPv6"}, {"[127.0.0.1]:/p", "IPv6"}, {"[::1]", "no volume or path"},
		{"[fe80::1%a b]:/p", "IPv6"}, {"ssh://backup", "absolute"}, {"ssh://backup::vol", "port"},
		{"ssh://backup:0/p", "port"}, {"ssh://backup:65536/p", "port"}, {"ssh://backup:+22/p", "port"},
		{"ssh://backup/%zz", "%25"}, {"ssh://backup/%0", "%25"}, {"file:///a%00b", "NUL"}, {"backup:/a\x00b", "NUL"},
		{"file://other/p", "absolute"}, {"file:", "absolute"}, {"rsync://backup/p", "unknown scheme"},
		{"georep://backup", "absolute"}, {"georep://backup/a/b", "volume name"}, {"georep://backup/", "volume name"},
		{"georep:///data", "host name"}, {"georep://backup:0/data", "port"}, {"back\nup:/p", "host name"},
	} {
		_, err := ParseSlave(c.in)
		if !errors.Is(err, ErrSyntax) {
			t.Errorf("ParseSlave(%q): %v, want ErrSyntax", c.in, err)
			continue
		}
		msg := err.Error()
		if !strings.Contains(msg, c.why) || !strings.Contains(msg, forms) || strings.ContainsRune(msg, '\n') {
			t.Errorf("ParseSlave(%q): %q, want one line with %q and the forms", c.in, msg, c.why)
		}
	}
	if s, err := ParseSlave("sftp://u@backup:23/p"); err != nil || s != (Slave{User: "u", Host: "backup", Port: 23, Path: "/p", SFTP: true}) ||
		s.String() != "sftp://u@backup:23/p" {
		t.Errorf("sftp: %+v, %v", s, err)
	}
}

func TestSessionDirectoriesDiffer(t *testing.T) {
	s := openStore(t)
	one := s.Files("a", Slave{Host: "b_c", Volume: "v"})
	two := s.Files("a_b", Slave{Host: "c", Volume: "v"})
	if one.Dir == two.Dir {
		t.Errorf("two sessions share %s", one.Dir)
	}
}

func TestEscape(t *testing.T) {
	for _, arg := range []string{"bob@backup::data", "backup:/srv/a~b\nc", "file:///", "ssh://[::1]:22/%FF"} {
		s, err := ParseSlave(arg)
		if err != nil {
			t.Fatal(err)
		}
		name := Escape(s)
		if back, ok := Unescape(name); !ok || back != s {
			t.Errorf("Unescape(%q) = %+v, %v; want %+v", name, back, ok, s)
		}
	}
	long := Slave{Host: "backup", Path: "/" + strings.Repeat("x/", 400) + "a"}
	other := Slave{Host: "backup", Path: "/" + strings.Repeat("x/", 400) + "b"}
	if len(Escape(long)) > maxEscaped || Escape(long) == Escape(other) {
		t.Errorf("Escape of long slaves: %q and %q", Escape(long), Escape(other))
	}
	if _, ok := Unescape(Escape(long)); ok {
		t.Error("a digest was reversed")
	}
	if _, ok := Unescape("backup%3a%3adata"); ok {
		t.Error("a name that Escape never writes was reversed")
	}
}

func FuzzParseSlave(f *testing.F) {
	for _, s := range []string{"backup::data", "b@[::1]:/p", "ssh://u@h:22/a%20b", "file:///x%FF", "sftp://h/p", "h:/\xff",
		"[fe80::1%eth0]::v", "h:/a//../b", "file:///%2e%2e/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		s, err := ParseSlave(arg)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Fatalf("ParseSlave(%q): the error has control characters: %q", arg, err)
			}
			return
		}
		if (s.Volume == "") == (s.Path == "") || s.Path != "" && s.Path[0] != '/' {
			t.Fatalf("ParseSlave(%q) = %+v", arg, s)
		}
		canonical := s.String()
		if !printable(canonical) {
			t.Fatalf("ParseSlave(%q).String() = %q is not printable", arg, canonical)
		}
		if again, err := ParseSlave(canonical); err != nil || again != s {
			t.Fatalf("ParseSlave(%q) = %+v, again as %q: %+v, %v", arg, s, canonical, again, err)
		}
		name := Escape(s)
		if len(name) > maxEscaped || strings.ContainsAny(name, "/\x00") {
			t.Fatalf("Escape(%q) = %q", canonical, name)
		}
		if back, ok := Unescape(name); ok && back != s {
			t.Fatalf("Unescape(%q) = %+v, want %+v", name, back, s)
		}
	})
}
