package serve

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// readSize is what is read of the network at once, in bytes. The library alone reads each packet of 32 KiB by two calls.
const readSize = 128 << 10

// ahead is a connection whose reading takes what is there, up to readSize. Deadlines and Close are those of the connection.
type ahead struct {
	net.Conn
	r *bufio.Reader
}

// Read is net.Conn's. The library reads on one goroutine, as this needs.
func (a *ahead) Read(p []byte) (int, error) { return a.r.Read(p) }

// conn is one connection, from its first byte on. Its goroutine is the server's; those of its channels are its own. What
// the client sends is bounded before the login by time, and afterwards by the library: a packet has 256 KiB at most, and a
// channel holds back the client once 2 MiB wait to be read.
type conn struct {
	server *Server
	raw    net.Conn
	wg     sync.WaitGroup // of its channels

	// mu guards what follows. key and grant are set once, by the login, and read without it by what runs after that.
	mu     sync.Mutex
	key    ssh.PublicKey // nil before the login
	grant  Grant         // at the login
	agents int           // that run
	idle   *time.Timer   // cuts the connection; it runs while there are no agents
}

// serve is called once, on the connection's goroutine. It runs the connection until it and all of its agents have ended. leave tells the gate how the login went.
func (c *conn) serve(ctx context.Context, leave func(bool)) {
	s := c.server
	log := s.cfg.Log.With().Str("from", c.raw.RemoteAddr().String()).Logger()
	// A connection without a deadline is refused by the handshake itself, so this error need not be looked at.
	_ = c.raw.SetDeadline(time.Now().Add(s.cfg.Limits.LoginTime))
	in, channels, requests, err := ssh.NewServerConn(&ahead{Conn: c.raw, r: bufio.NewReaderSize(c.raw, readSize)}, s.ssh)
	if err == nil {
		err = c.loggedIn(in)
	}
	// From here on the key's limits count, and no longer the address's.
	leave(err == nil)
	if err != nil {
		log.Debug().Err(err).Msg("no login")
		return
	}
	defer c.server.logins.give(ssh.FingerprintSHA256(c.key))
	_ = c.raw.SetDeadline(time.Time{})
	log.Info().Str("key", ssh.FingerprintSHA256(c.key)).Str("for", c.grant.place()).Msg("login")
	// Agents are waited for once the wire is cut, which ends their input.
	defer c.wg.Wait()
	defer in.Close()
	defer c.idle.Stop()
	c.wg.Go(func() { ssh.DiscardRequests(requests) })
	// One after the other: opening a channel waits for nothing but the client's own connection.
	for opened := range channels {
		if opened.ChannelType() != "session" {
			_ = opened.Reject(ssh.UnknownChannelType, "georep serve has no such channels")
			continue
		}
		c.channel(ctx, opened)
	}
}

// loggedIn counts the login, which the caller gives back unless there is an error. It is called once, after the handshake and before any channel. It takes down whose connection it is. The key may be gone from the file since the handshake asked.
func (c *conn) loggedIn(in *ssh.ServerConn) error {
	key, err := ssh.ParsePublicKey([]byte(in.Permissions.Extensions[keyExtension]))
	if err != nil {
		return fmt.Errorf("read the login's key: %w", err)
	}
	grant, err := c.server.grant(key)
	if err != nil {
		return err
	}
	if err := c.server.logins.take(ssh.FingerprintSHA256(key)); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.key, c.grant = key, grant
	c.idle = time.AfterFunc(c.server.cfg.Limits.Idle, func() { _ = c.raw.Close() })
	return nil
}

// recheck is Recheck for one connection. It cuts the connection unless its key is held to what it was.
func (c *conn) recheck(keys Keys) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key == nil {
		return // its login asks for itself
	}
	if now, ok := keys.Find(c.key); !ok || !now.equal(c.grant) {
		_ = c.raw.Close()
	}
}

// channel serves a channel, where there is room for one more.
func (c *conn) channel(ctx context.Context, opened ssh.NewChannel) {
	// Room is taken before the channel is opened: a refusal then says why, where a client shows it.
	who := ssh.FingerprintSHA256(c.key)
	if err := c.server.agents.take(who); err != nil {
		c.server.cfg.Log.Warn().Str("key", who).Err(err).Msg("channel refused")
		_ = opened.Reject(ssh.ResourceShortage, err.Error()+": georep serve has --max-per-key and --max-agents for this")
		return
	}
	ch, requests, err := opened.Accept()
	if err != nil { // the connection is ending
		c.server.agents.give(who)
		return
	}
	c.count(1) // before the goroutine, so that an idle connection is not cut in between
	c.wg.Go(func() {
		defer c.count(-1)
		defer c.server.agents.give(who)
		c.session(ctx, ch, requests)
	})
}

// count keeps the connection while it has channels. One without is cut after a while, so that a login that was forgotten
// takes no memory for good. The connection of a session has channels all the time.
func (c *conn) count(change int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agents += change
	if c.agents == 0 {
		c.idle.Reset(c.server.cfg.Limits.Idle)
	} else {
		c.idle.Stop()
	}
}

// session answers a channel's requests until one is for the subsystem, and runs an agent for that. A channel that asks
// for nothing but what is refused is closed after the time of a login. The client has to close the channel too: until
// it does, or the connection ends, the channel counts as an agent of its key.
func (c *conn) session(ctx context.Context, ch ssh.Channel, requests <-chan *ssh.Request) {
	defer func() {
		_ = ch.Close()
		ssh.DiscardRequests(requests)
	}()
	late := time.AfterFunc(c.server.cfg.Limits.LoginTime, func() { _ = ch.Close() })
	defer late.Stop()
	// Errors of replies mean that the channel has ended, which the loop sees.
	for req := range requests {
		if req.Type != "subsystem" || subsystem(req.Payload) != Subsystem {
			_ = req.Reply(false, nil)
			continue
		}
		late.Stop()
		_ = req.Reply(true, nil)
		discarded := make(chan struct{})
		c.wg.Go(func() { defer close(discarded); ssh.DiscardRequests(requests) })
		c.agent(ctx, ch)
		_ = ch.Close()
		<-discarded
		return
	}
}

// subsystem reads a request's name; "" where there is none. The payload is the client's, and may be anything: what is left
// behind the name makes it no name.
func subsystem(payload []byte) string {
	var msg struct{ Name string }
	if ssh.Unmarshal(payload, &msg) != nil {
		return ""
	}
	return msg.Name
}
