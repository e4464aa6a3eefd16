package sshserver

import (
	"context"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// serve runs one connection until it and all of its commands have ended.
func (s *Server) serve(ctx context.Context, raw net.Conn) {
	defer s.forget(raw)
	if !s.track(raw) {
		return
	}
	// A connection without a deadline is refused by the handshake itself, so this error need not be looked at.
	_ = raw.SetDeadline(time.Now().Add(loginTimeout))
	conn, channels, requests, err := ssh.NewServerConn(raw, s.ssh)
	if err != nil {
		s.cfg.Logger.Debug().Err(err).Msg("ssh handshake")
		return
	}
	_ = raw.SetDeadline(time.Time{})
	var wg sync.WaitGroup
	defer wg.Wait()
	// The commands are only waited for once the wire is cut, which ends their streams.
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { ssh.DiscardRequests(requests) })
	for opened := range channels {
		if opened.ChannelType() != "session" {
			_ = opened.Reject(ssh.UnknownChannelType, "only sessions are served here")
			continue
		}
		ch, reqs, err := opened.Accept()
		if err != nil {
			continue // the connection is ending
		}
		wg.Go(func() { s.session(ctx, &session{ch: ch, wg: &wg}, reqs) })
	}
}

// session is one channel, on which one command may run.
type session struct {
	ch ssh.Channel
	wg *sync.WaitGroup // of the connection
	// running is set by the first exec request, and never unset: a channel has one command, as RFC 4254 (6.5) has it.
	running bool
}

// session answers a channel's requests until it ends, which ends its command.
func (s *Server) session(ctx context.Context, ses *session, reqs <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Errors of replies mean that the channel has ended, which the loop sees.
	for req := range reqs {
		if req.Type != "exec" {
			_ = req.Reply(false, nil)
			continue
		}
		var msg struct{ Command string }
		if ses.running || ssh.Unmarshal(req.Payload, &msg) != nil {
			_ = req.Reply(false, nil)
			continue
		}
		ses.running = true
		_ = req.Reply(true, nil)
		ses.wg.Go(func() { s.run(ctx, ses, msg.Command) })
	}
}

// run carries the command out and tells the client how it ended.
func (s *Server) run(ctx context.Context, ses *session, command string) {
	exit := s.cfg.Handler(ctx, command, Streams{
		Stdin: ses.ch, Stdout: ses.ch, Stderr: ses.ch.Stderr(), wg: ses.wg,
	})
	// A client that is gone does not hear this.
	_ = ses.ch.CloseWrite()
	_, _ = ses.ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(exit)}))
	_ = ses.ch.Close()
}
