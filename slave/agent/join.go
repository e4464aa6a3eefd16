package agent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"georep/slave"
)

// How a stream joins a session at the slave's end. sshd starts a process for each channel, and the process of stream 0
// has the tree. Those of the others hand it the descriptors of their standard input and output, over a Unix socket, and
// wait until it has done with them: no byte of the streams is relayed.
//
// The socket has an abstract address, so that it needs no place in a file system and leaves nothing behind. The address
// tells nothing of the token that it is made of. Both ends check that the other one is the same user's.

// maxJoin bounds the message that a stream joins by: a hello whose path is none that the kernel takes is refused.
const maxJoin = 8 << 10

// address is where the process of stream 0 listens. It is a hash, so whoever lists sockets learns
// nothing.
func (t Token) address() *net.UnixAddr {
	sum := sha256.Sum256(append([]byte("georep streams "), t[:]...))
	return &net.UnixAddr{Net: "unixpacket", Name: "@georep-" + hex.EncodeToString(sum[:16])}
}

// listen makes the token and the socket; accept is then to be run. An error says why no stream can
// join; the session goes on with one.
func (h *hub) listen() error {
	var token Token
	if _, err := rand.Read(token[:]); err != nil {
		return fmt.Errorf("make a token for further streams: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", token.address())
	if err != nil {
		return fmt.Errorf("listen for further streams: %w", err)
	}
	h.listener, h.said.token = l, token
	return nil
}

// accept takes connections until the session is over. More than any client needs are not looked at,
// and neither are those of other users. More connections than joining has room for are closed
// unread: an attacker of the same user gains nothing but that.
func (h *hub) accept() {
	defer h.listener.Close()
	for {
		conn, err := h.listener.AcceptUnix()
		if err != nil {
			return
		}
		select {
		case h.joining <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		if sameUser(conn) != nil {
			conn.Close()
			<-h.joining
			continue
		}
		h.further.Go(func() {
			defer func() { <-h.joining }()
			h.join(conn)
		})
	}
}

// join answers a process that brings a stream, and serves that. joinTime bounds everything that is
// said; afterwards the connection is silent as long as the stream lives.
func (h *hub) join(conn *net.UnixConn) {
	defer conn.Close()
	release := context.AfterFunc(h.live, func() { conn.Close() })
	defer release()
	// An error of the socket shows in what follows; a process that is gone does not hear the answer.
	_ = conn.SetDeadline(time.Now().Add(joinTime))
	number, s, err := h.admit(conn)
	_, sendErr := conn.Write(appendError(nil, err))
	if err != nil {
		return
	}
	if sendErr != nil {
		h.end(nil, fmt.Errorf("take stream %d: %w", number, sendErr))
	}
	_ = conn.SetDeadline(time.Time{})
	release() // from here on the connection ends after the stream
	h.serveFurther(number, s, conn)
}

// admit takes a stream, if it may join, and attaches it. On an error the stream is closed. On
// success the hub serves and closes it.
func (h *hub) admit(conn *net.UnixConn) (number uint32, s *server, err error) {
	hello, stream, err := receive(conn)
	if err != nil {
		return 0, nil, err
	}
	if subtle.ConstantTimeCompare(hello.Token[:], h.said.token[:]) != 1 || !hello.joins(&h.first) {
		return 0, nil, errors.Join(fmt.Errorf("%w: the token or the session is another one", slave.ErrInvalid), stream.Close())
	}
	s = newServer(h.ctx, stream)
	s.hub = h
	if err := h.attach(hello.Stream, s); err != nil {
		s.stopReading()
		s.close()
		return 0, nil, err
	}
	return hello.Stream, s, nil
}

// handOver gives the stream of a client that wants to join a session to the process of that
// session, and waits until it is done with it. The client hears why where that cannot be. This
// process stays for as long as the stream does, since sshd takes its end for the channel's.
func (s *server) handOver(ctx context.Context, rw io.ReadWriteCloser, hello *Hello, host *Host) error {
	conn, err := s.offer(rw, hello, host)
	if err != nil {
		refusal := appendFrame(nil, head{kind: frameRefuse}, errorBody(err))
		_, sendErr := rw.Write(refusal)
		return errors.Join(err, sendErr)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	s.close() // the other process has descriptors of its own
	if host.Confine != nil {
		host.Confine(hello, nil)
	}
	if _, err = conn.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("wait for the session's end: %w", err)
}

// offer hands the stream over, and returns the connection by which that was done.
func (s *server) offer(rw io.ReadWriteCloser, hello *Hello, host *Host) (*net.UnixConn, error) {
	if host.Join == nil {
		return nil, errOneStream
	}
	if err := host.Join(*hello); err != nil {
		return nil, err
	}
	stream, ok := rw.(*pair)
	if !ok {
		return nil, fmt.Errorf("%w: a stream that cannot be handed to another process", errors.ErrUnsupported)
	}
	if s.in.r.Buffered() > 0 {
		return nil, malformed("more behind the hello before it was answered")
	}
	conn, err := net.DialUnix("unixpacket", nil, hello.Token.address())
	if err != nil {
		return nil, fmt.Errorf("find the session of stream %d: %w", hello.Stream, err)
	}
	if err := bring(conn, hello, stream); err != nil {
		conn.Close()
		return nil, fmt.Errorf("join the session as stream %d: %w", hello.Stream, err)
	}
	return conn, nil
}

// bring says hello and waits for the answer. Its errors are for the operator: the session goes on
// with fewer streams.
func bring(conn *net.UnixConn, hello *Hello, stream *pair) error {
	if err := sameUser(conn); err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(joinTime)); err != nil {
		return err
	}
	if err := send(conn, hello, stream); err != nil {
		return err
	}
	answer := make([]byte, maxJoin)
	n, err := conn.Read(answer)
	if err != nil {
		return fmt.Errorf("wait for the answer: %w", cutShort(err))
	}
	d := decoder{b: answer[:n]}
	if err := firstError(d.error(), d.end()); err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}

// sameUser refuses a process of another user at the far end of a socket. An abstract address has no
// permissions of its own, so both ends ask the kernel.
func sameUser(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return fmt.Errorf("find out whose process it is: %w", err)
	}
	if me := os.Geteuid(); int64(cred.Uid) != int64(me) {
		return fmt.Errorf("%w: a process of user %d instead of user %d", unix.EACCES, cred.Uid, me)
	}
	return nil
}

// appendJoin encodes what a stream joins by. The process at the other end may be another version of georep.
func appendJoin(b []byte, hello *Hello) []byte {
	return appendHello(binary.BigEndian.AppendUint32(b, Protocol), hello)
}

// decodeJoin decodes and checks what appendJoin made.
func decodeJoin(b []byte) (*Hello, error) {
	d := decoder{b: b}
	if number := d.raw(4); d.err == nil && binary.BigEndian.Uint32(number) != Protocol {
		return nil, fmt.Errorf("%w: protocol %d, and the session has %d", slave.ErrVersion,
			binary.BigEndian.Uint32(number), Protocol)
	}
	hello := d.hello()
	if d.err == nil && hello.Stream == 0 {
		d.fail("stream 0 joins no session")
	}
	return &hello, d.end()
}

// send sends the hello, and with it the descriptors of the stream. The descriptors are duplicated
// by the kernel; the caller still closes its own.
func send(conn *net.UnixConn, hello *Hello, stream *pair) error {
	message := appendJoin(nil, hello)
	if len(message) > maxJoin {
		return malformed("a path of %d bytes", len(hello.Path))
	}
	in, err := stream.in.SyscallConn()
	if err != nil {
		return err
	}
	out, err := stream.out.SyscallConn()
	if err != nil {
		return err
	}
	var outErr, sendErr error
	err = in.Control(func(inFd uintptr) {
		outErr = out.Control(func(outFd uintptr) {
			_, _, sendErr = conn.WriteMsgUnix(message, unix.UnixRights(int(inFd), int(outFd)), nil)
		})
	})
	return errors.Join(err, outErr, sendErr)
}

// receive takes what send has sent. The caller owns the stream.
func receive(conn *net.UnixConn) (*Hello, *pair, error) {
	message, rights := make([]byte, maxJoin), make([]byte, unix.CmsgSpace(2*4))
	n, rightsLen, flags, _, err := conn.ReadMsgUnix(message, rights)
	if err != nil {
		return nil, nil, fmt.Errorf("read a hello: %w", cutShort(err))
	}
	stream, err := openRights(rights[:rightsLen])
	if err != nil {
		return nil, nil, err
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return nil, nil, errors.Join(malformed("a hello of more than %d bytes", maxJoin), stream.Close())
	}
	hello, err := decodeJoin(message[:n])
	if err != nil {
		return nil, nil, errors.Join(err, stream.Close())
	}
	return hello, stream, nil
}

// openRights makes a stream of the two descriptors that came along. Whatever else came is closed.
// Two descriptors that came and are kept belong to the pair.
func openRights(b []byte) (*pair, error) {
	var fds []int
	messages, err := unix.ParseSocketControlMessage(b)
	for i := range messages {
		// What carries no descriptors gives an error and none.
		more, rightsErr := unix.ParseUnixRights(&messages[i])
		fds, err = append(fds, more...), errors.Join(err, rightsErr)
	}
	for _, fd := range fds {
		err = errors.Join(err, unix.SetNonblock(fd, true))
	}
	if err == nil && len(fds) != 2 {
		err = malformed("%d descriptors in place of 2", len(fds))
	}
	if err != nil {
		for _, fd := range fds {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, fmt.Errorf("take a stream: %w", err)
	}
	return &pair{in: os.NewFile(uintptr(fds[0]), "in"), out: os.NewFile(uintptr(fds[1]), "out")}, nil
}
