package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/agent"
	"georep/slave/compress"
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

// TestContractOverStreams runs the suite over several streams, and sees to it that all of them carry batches.
func TestContractOverStreams(t *testing.T) {
	for _, streams := range []int{1, 8} {
		t.Run(fmt.Sprint(streams), func(t *testing.T) {
			slavetest.Run(t, func(t *testing.T) (slave.Tree, string) { return openGroup(t, streams) })
		})
	}
}

func openGroup(t *testing.T, streams int) (slave.Tree, string) {
	root, err := os.MkdirTemp(t.TempDir(), "slave")
	if err != nil {
		t.Fatal(err)
	}
	host := &agent.Host{Version: "test", Open: openDisk(t), Join: func(agent.Hello) error { return nil }}
	var serving sync.WaitGroup
	grown := make(chan error, 1)
	g, err := agent.DialGroup(context.Background(), agent.Hello{Version: "test", Master: xtime.UUID{1},
		Session: xtime.UUID{2}, Path: root, Compressed: streams == 3, Mode: compress.Always}, agent.GroupOptions{
		Streams: streams,
		Open: func(context.Context, int) (io.ReadWriteCloser, error) {
			here, there := agent.FilePipe(t)
			serving.Go(func() {
				if err := host.Serve(context.Background(), there); err != nil {
					t.Errorf("Serve: %v", err)
				}
			})
			return here, nil
		},
		OnGrow: func(have int, err error) { grown <- errors.Join(err, wants(have, streams)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
	if streams > 1 {
		g.Grow()
		if err := <-grown; err != nil {
			t.Fatal(err)
		}
	}
	return &inTurn{Group: g, streams: streams}, root
}

func wants(have, want int) error {
	if have != want {
		return fmt.Errorf("%d streams, want %d", have, want)
	}
	return nil
}

// inTurn gives each batch to the stream after that of the batch before.
type inTurn struct {
	*agent.Group
	streams int
	next    atomic.Int64
}

func (g *inTurn) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	return g.ApplyOver(ctx, b, int(g.next.Add(1))%g.streams)
}

func openDisk(t *testing.T) agent.Opener {
	return func(h agent.Hello) (slave.Reader, error) {
		return disk.Open(disk.Options{Path: h.Path, Master: h.Master, Session: h.Session, Proof: h.Proof,
			Force: h.Force, Create: h.Create, Version: h.Version, Logger: zerolog.New(zerolog.NewTestWriter(t))})
	}
}

// A directory's tree stages, and the agent must notice.
var _ agent.Stager = (*disk.Tree)(nil)

// TestContractInspector runs the suite of an inspector behind both ends of the protocol.
func TestContractInspector(t *testing.T) {
	open := func(t *testing.T) (slave.Tree, string) { return openGroup(t, 1) }
	slavetest.RunInspector(t, open, func(t *testing.T, root string) slave.Reader {
		here, there := net.Pipe()
		served := make(chan error, 1)
		go func() {
			served <- agent.Serve(context.Background(), there, "test", func(h agent.Hello) (slave.Reader, error) {
				if !h.Inspect {
					return nil, errors.New("not an inspector")
				}
				return disk.OpenInspector(disk.Options{Path: h.Path, Master: h.Master, Session: h.Session, Version: h.Version,
					Logger: zerolog.New(zerolog.NewTestWriter(t))})
			})
		}()
		client, err := agent.Dial(context.Background(), here, agent.Hello{Version: "test", Master: xtime.UUID{1},
			Session: xtime.UUID{2}, Path: root, Inspect: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close(); <-served })
		return client
	})
}

// TestOnlyAnInspectorExamines: a worker's session may not take records back behind its own committer.
func TestOnlyAnInspectorExamines(t *testing.T) {
	tree, _ := openGroup(t, 1)
	if _, err := tree.(slave.Examiner).Distrust(context.Background(), []string{""}); err == nil {
		t.Fatal("it took records back")
	}
}
