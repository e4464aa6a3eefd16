package connect

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/disk"
	"georep/volume"
)

// drawer is a toy: a slave that keeps the copy in a directory of its own within the one that it is given.
type drawer struct{ slave.Tree }

func openDrawer(_ context.Context, c *Config, _ volume.Options, ids uuids) (slave.Tree, error) {
	tree, err := disk.Open(disk.Options{Path: filepath.Join(c.Session.Slave.Path, "drawer"), Master: ids.master, Session: ids.session,
		Proof: ids.proof, Create: true})
	if err != nil {
		return nil, err
	}
	return drawer{tree}, nil
}

// TestNewKind: a new kind of slave is a package that implements slave.Tree, and one line.
func TestNewKind(t *testing.T) {
	dir := t.TempDir()
	toy := kind{name: "a toy",
		serves: func(s volume.Slave, _ *volume.Options) bool { return strings.HasSuffix(s.Path, ".toy") },
		open:   openDrawer,
		inspect: func(ctx context.Context, c *Config, o volume.Options, ids uuids) (slave.Reader, error) {
			return openDrawer(ctx, c, o, ids)
		}}
	for name, isToy := range map[string]bool{"copy.toy": true, "copy": false} {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		c := Config{kinds: append([]kind{toy}, kinds()...), Session: volume.Session{Master: "data", UUID: xtime.NewUUID().String(),
			Slave: volume.Slave{Path: path}}, Volume: volume.Volume{Name: "data", UUID: xtime.NewUUID().String()}}
		tree, err := Slave(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		want := path
		if isToy {
			want = filepath.Join(path, "drawer")
		}
		if got := tree.Info().Path; got != want {
			t.Errorf("%s: the copy is in %s, want %s", name, got, want)
		}
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestKinds: each form of a SLAVE has its kind.
func TestKinds(t *testing.T) {
	for arg, want := range map[string]string{"file:///copy": "a directory of this host", "sftp://host/copy": "SFTP alone",
		"host::copy": "an agent", "host:/copy": "an agent", "ssh://host/copy": "an agent"} {
		s, err := volume.ParseSlave(arg)
		if err != nil {
			t.Fatal(err)
		}
		c := Config{Session: volume.Session{Slave: s}}
		if got := c.kind(&volume.Options{}).name; got != want {
			t.Errorf("%s: %s, want %s", arg, got, want)
		}
		if s.Path != "" && !s.Local() {
			if got := c.kind(&volume.Options{Agentless: true}).name; got != "SFTP alone" {
				t.Errorf("%s without an agent: %s", arg, got)
			}
		}
	}
}
