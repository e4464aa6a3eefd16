package agent_test

import (
	"context"
	"net"
	"os"
	"testing"

	"github.com/rs/zerolog"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/agent"
	"georep/slave/disk"
	"georep/slave/slavetest"
)

// TestContract runs the suite of every slave on a directory behind both ends of the protocol.
func TestContract(t *testing.T) {
	slavetest.Run(t, func(t *testing.T) (slave.Tree, string) {
		root, err := os.MkdirTemp(t.TempDir(), "slave")
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- agent.Serve(context.Background(), there, "test", openDisk(t)) }()
		client, err := agent.Dial(context.Background(), here, agent.Hello{Version: "test", Master: xtime.UUID{1},
			Session: xtime.UUID{2}, Path: root})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := client.Close(); err != nil {
				t.Error(err)
			}
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
		return client, root
	})
}

func openDisk(t *testing.T) agent.Opener {
	return func(h agent.Hello) (slave.Tree, error) {
		return disk.Open(disk.Options{Path: h.Path, Master: h.Master, Session: h.Session, Force: h.Force,
			Create: h.Create, Version: h.Version, Logger: zerolog.New(zerolog.NewTestWriter(t))})
	}
}

// A directory's tree stages, and the agent must notice.
var _ agent.Stager = (*disk.Tree)(nil)
