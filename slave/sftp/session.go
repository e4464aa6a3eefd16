package sftp

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"georep/slave"
	"georep/slave/sftp/wire"
)

// session is the SFTP sessions of one opening: it begins them, watches them, and ends them
// together. log, o, prefix and serial may be used from anywhere; info is Open's until that returns,
// and does not change afterwards.
type session struct {
	*life
	*host
	log    zerolog.Logger
	o      Options
	info   slave.Info // learnt by Open; it does not change after that
	prefix string     // makes this session's names in staging its own
	serial atomic.Uint64
}

// connect begins the sessions that Open waits for, at the same time. One is enough: a server may
// refuse the others, and which of them it takes is its own affair. The error is that of the first,
// if none could be begun.
func (s *session) connect(ctx context.Context) error {
	n := max(s.o.Streams-s.o.Late, 1)
	clients, errs := make([]*wire.Client, n), make([]error, n)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() { clients[i], errs[i] = s.begin(ctx, i) })
	}
	all.Wait()
	for _, c := range clients {
		if c != nil {
			s.join(c)
		}
	}
	if len(s.all()) == 0 {
		return fmt.Errorf("begin an SFTP session on %s: %w", s.o.Host, errs[0])
	}
	return nil
}

// begin gives one session, nil with an error. A server that takes the stream and says nothing is
// given up after patience (ErrSilent). The caller joins it and watches it.
func (s *session) begin(ctx context.Context, number int) (*wire.Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, silent("", time.Now()))
	defer cancel()
	stream, err := s.o.Open(ctx, number)
	var c *wire.Client
	if err == nil {
		c, err = wire.New(ctx, stream)
	}
	if err != nil {
		s.log.Debug().Err(err).Int("session", number).Msg("one SFTP session less")
		return nil, err
	}
	return c, nil
}

// ErrSilent: the server holds the connection, and does nothing that it is asked.
var ErrSilent = errors.New("the SFTP server says nothing")

func silent(request string, since time.Time) error {
	if request == "" {
		request = "begin a session"
	}
	return fmt.Errorf("%w: it has answered nothing since %s (asked: %s): look at its host's disk, and try again; a session that was "+
		"started does so by itself", ErrSilent, since.UTC().Format(time.RFC3339), request)
}

// openingLooks is how often is looked whether the server answers while the slave is opened.
const openingLooks = 5 * time.Second

// whileItAnswers opens the slave, and gives that up when ctx ends or the server answers nothing any more. Then the sessions are ended.
func (s *session) whileItAnswers(ctx context.Context, open func(context.Context) error) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	stopWatch := s.watchAnswers(end)
	stop := context.AfterFunc(ctx, s.hangUp)
	err := open(ctx)
	stopWatch()
	if !stop() {
		err = context.Cause(ctx)
	}
	return err
}

// watchAnswers gives the opening up once the server answers nothing, until the returned function is called.
func (s *session) watchAnswers(giveUp func(error)) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(openingLooks):
			}
			if request, since := s.Unanswered(); !since.IsZero() {
				giveUp(silent(request, since))
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// beginLate begins the sessions that the opening did not wait for. The end of the Tree ends them.
func (s *session) beginLate() {
	ctx, cancel := context.WithCancel(context.Background())
	s.loops.Go(func() {
		<-s.done
		cancel()
	})
	for i := max(s.o.Streams-s.o.Late, 1); i < s.o.Streams; i++ {
		s.loops.Go(func() {
			c, err := s.begin(ctx, i)
			if err != nil {
				return
			}
			defer c.Close() // it may have come after the others were hung up
			s.join(c)
			s.watch(c)
		})
	}
}

// hangUp ends the sessions, and with them every call that waits for an answer. It may be called
// again.
func (s *session) hangUp() {
	for _, c := range s.all() {
		c.Close()
	}
}

// watchAll watches the sessions that there are.
func (s *session) watchAll() {
	for _, c := range s.all() {
		s.loops.Go(func() { s.watch(c) })
	}
}

// watch ends the Tree when one of its sessions ends: what was asked of that one may have been done
// or not, so nobody goes on with the others. It returns when the Tree has ended.
func (s *session) watch(c *wire.Client) {
	select {
	case <-c.Done():
		s.fail(fmt.Errorf("the connection to %s: %w", s.o.Host, c.Err()))
	case <-s.done:
	}
}

// end ends the session, once. last, if there is one, is called when the calls at work have come to their end, unless the session was
// lost before.
func (s *session) end(last func()) {
	s.once.Do(func() {
		s.closeMu.Lock()
		s.closed = true
		lost := s.err
		s.closeMu.Unlock()
		close(s.closing)
		if lost == nil && last != nil {
			s.users.Wait()
			last()
		}
		s.fail(ErrClosed)
		s.hangUp()
		s.users.Wait()
		s.loops.Wait()
	})
}

// Info tells what was found when the slave was opened.
func (s *session) Info() slave.Info { return s.info }

// stagingName gives a name in staging that was never used, by this session or another.
func (s *session) stagingName() string {
	return stagingDir + "/" + s.unique()
}

// unique is a name that no session has used: prefix is random, serial counts.
func (s *session) unique() string { return s.prefix + "-" + strconv.FormatUint(s.serial.Add(1), 36) }

// name is the slave in messages: host and path.
func (s *session) name() string { return s.o.Host + ":" + s.abs("") }

// put replaces one of our own files, whole: whoever reads it finds the old content or the new one,
// on a server that can replace at once. The new one is durable before it gets its name, where the
// server can.
func (s *session) put(path string, text []byte) error {
	temp := s.stagingName()
	err := s.create(temp, text)
	if err == nil {
		err = s.replace(temp, path, path+oldSuffix)
	}
	if err != nil {
		_ = s.any().Remove(s.abs(temp))
	}
	return err
}
