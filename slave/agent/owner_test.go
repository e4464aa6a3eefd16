package agent_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"georep/slave"
	"georep/slave/agent"
	"georep/slave/slavetest"
)

// served is a client with the server that it came to.
type served struct {
	*agent.Client
	server *sync.WaitGroup
}

func (s served) Close() error {
	err := s.Client.Close()
	s.server.Wait()
	return err
}

// claimer opens a slave behind both ends of the protocol.
func claimer(t *testing.T, root string, c slave.Claim) (slave.Tree, error) {
	here, there := net.Pipe()
	var server sync.WaitGroup
	server.Go(func() {
		err := agent.Serve(context.Background(), there, "test", openDisk(t))
		t.Logf("the server ended: %v", err)
	})
	client, err := agent.Dial(context.Background(), here, agent.Hello{Version: "test", Master: c.Master, Session: c.Session,
		Path: root, Create: true, Proof: c.Proof, Force: c.Force})
	if err != nil {
		server.Wait()
		return nil, err
	}
	if client.Info().Slave.IsZero() {
		err = errors.New("the slave has no name")
	}
	return served{client, &server}, err
}

// TestOwners: what the agent is told and tells of the slave that a session has filled crosses the wire.
func TestOwners(t *testing.T) { slavetest.RunOwners(t, claimer) }

// TestGone: so does the end of a session whose slave is gone.
func TestGone(t *testing.T) { slavetest.RunGone(t, claimer) }
