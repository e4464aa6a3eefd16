// Package connect opens the slave of a session, of whatever kind it is (kinds.go): a directory of this host, the agent at the far end
// of an SSH connection, or SFTP alone. It makes sure that master and slave are two places. It owns what it opens until the caller closes the
// slave; it never retries.
package connect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"georep/internal/bandwidth"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/agent"
	"georep/slave/compress"
	"georep/slave/sshconn"
	"georep/volume"
)

// Config says what to connect to, and for whom. It is copied by each call, and may be used again.
type Config struct {
	Session volume.Session
	Volume  volume.Volume // the master; without a path nobody looks whether the slave lies apart from it
	Force   bool          // take a slave that is not empty, belongs to another master, or is not the one that was filled
	// Store keeps what the session knows of the slave that it has filled; where it is nil every slave is a new one.
	Store *volume.Store
	// DryRun, for Inspect, allows for a slave that nobody has filled yet, and for Force. Over SFTP it is the only way to have it inspected,
	// and the Reader is no slave.Examiner.
	DryRun  bool
	Version string
	Logger  zerolog.Logger
	// Wire counts the bytes that cross the connection, both ways.
	Wire *atomic.Int64
	// Seen, if set, counts what a restore has done.
	Seen *slave.Seen
	// NeedsBulk, if set, is called while the session begins, and tells whether so much is to be sent that all of its streams are
	// worth their opening at once. It ends with ctx, at the latest at the end of the session, whose Close waits for it.
	NeedsBulk func(ctx context.Context) bool

	inspect bool   // the slave is only looked at
	kinds   []kind // nil: those that kinds gives
}

// Slave opens the session's slave. Its errors are one line for the operator; Final tells whether
// trying again can help. The caller closes the slave, which closes every connection that was made
// for it.
func Slave(ctx context.Context, c Config) (slave.Tree, error) {
	return open(ctx, &c, func(k *kind) opener[slave.Tree] { return k.open })
}

// Inspect opens the slave beside the session's worker, to be looked at, and where it is a slave.Examiner to be examined. Its errors
// are those of Slave.
func Inspect(ctx context.Context, c Config) (slave.Reader, error) {
	c.inspect = true
	return open(ctx, &c, func(k *kind) opener[slave.Reader] { return k.inspect })
}

// open opens the session's slave, the way that its kind is opened. Whether master and slave are
// apart is known only once the slave has said where it is, so a slave that is refused for that has
// been opened.
func open[T slave.Reader](ctx context.Context, c *Config, way func(*kind) opener[T]) (tree T, err error) {
	var none T
	options, err := c.Session.Options()
	if err != nil {
		return none, err
	}
	ids, err := c.uuids()
	if err != nil {
		return none, err
	}
	if ids.proof, err = c.proof(); err != nil {
		return none, err
	}
	if tree, err = way(c.kind(&options))(ctx, c, options, ids); err != nil {
		return none, err
	}
	if c.Volume.Path != "" {
		err = apart(c.Volume.Path, tree.Info())
	}
	if err != nil {
		tree.Close()
		return none, err
	}
	c.remember(ids.proof, tree.Info().Slave)
	return tree, nil
}

// Final tells whether the error stays until somebody changes something.
func Final(err error) bool {
	if sshconn.Final(err) {
		return true
	}
	for _, final := range []error{ErrNoAgent, ErrOverlap, slave.ErrVersion, slave.ErrNoVolume, slave.ErrNotEmpty,
		slave.ErrForeign, slave.ErrPromoted, slave.ErrPolicy, slave.ErrUnfit} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// uuids are those of the session, and what it knows of its slave.
type uuids struct {
	master, session xtime.UUID
	proof           slave.Proof
}

// An error means that the registry was edited by hand.
func (c *Config) uuids() (ids uuids, err error) {
	if ids.master, err = xtime.ParseUUID(c.Volume.UUID); err != nil {
		return ids, fmt.Errorf("volume %s: %w", c.Volume.Name, err)
	}
	if ids.session, err = xtime.ParseUUID(c.Session.UUID); err != nil {
		return ids, fmt.Errorf("session %s %s: %w", c.Session.Master, c.Session.Slave, err)
	}
	return ids, nil
}

// dial makes a connection of the session. The ssh configuration of the user who runs the worker
// counts, unless GEOREP_SSH_CONFIG names another file.
func (c *Config) dial(ctx context.Context, o volume.Options) (*sshconn.Conn, error) {
	s := c.Session.Slave
	target := sshconn.Target{User: s.User, Host: s.Host, Port: o.SSHPort, ConfigFile: os.Getenv("GEOREP_SSH_CONFIG")}
	if o.Identity != "" {
		target.Identities = []string{o.Identity}
	} else if own := c.ownKey(); own != "" {
		target.Identities = []string{own}
	}
	if o.Trust.KnownHosts != "" {
		target.KnownHosts = []string{o.Trust.KnownHosts}
	}
	// Who gives a fingerprint has compared it: known_hosts has no say then.
	target.HostKey = o.Trust.HostKey
	conn, err := sshconn.Dial(ctx, target, sshconn.Options{Logger: c.Logger})
	if err != nil && s.Serve {
		err = explainServe(err)
	}
	return conn, err
}

// ownKey is the key that authorize made for the session, "" where it did not.
func (c *Config) ownKey() string {
	if c.Store == nil {
		return ""
	}
	path := c.Store.Files(c.Session.Master, c.Session.Slave).Key
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	// What keeps it from being used is for the login to say. A percent sign begins a token in an ssh configuration.
	return strings.ReplaceAll(path, "%", "%%")
}

// SFTPCommand is the ForcedCommand of a slave without an agent.
const SFTPCommand = "internal-sftp"

// ForcedCommand is what a key of the session's own is held to on the slave's host.
func ForcedCommand(s volume.Session, o volume.Options, master volume.Volume) string {
	if isSFTP(s.Slave, &o) {
		return SFTPCommand
	}
	command := agentCommand(o)
	if s.Slave.Volume != "" {
		command += " --volume " + quote(s.Slave.Volume)
	} else {
		command += " --path " + quote(s.Slave.Path)
	}
	return command + " --master " + master.UUID
}

// lines are the connections of a session of so many streams, of which conn is the first.
func (c *Config) lines(conn *sshconn.Conn, o volume.Options, streams int) *lines {
	return newLines(conn, streams, func(ctx context.Context) (*sshconn.Conn, error) { return c.dial(ctx, o) },
		func(err error) { c.Logger.Info().Err(err).Msg("the session goes on with fewer SSH connections") })
}

// agentCommand is what the far end's shell is to run.
func agentCommand(o volume.Options) string {
	words := []string{quote(o.RemoteGeorep)}
	if o.RemoteStateDir != "" {
		words = append(words, "--state-dir", quote(o.RemoteStateDir))
	}
	return strings.Join(append(words, "agent"), " ")
}

// quote makes s one word of a POSIX shell.
func quote(s string) string {
	plain := strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=:@%") == ""
	if plain && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// openAgent begins a session of up to so many streams, each a command of its own on a channel of
// its own. The first stream is the session; the others, and the second connection, come when there
// is much to send.
func (c *Config) openAgent(ctx context.Context, conn *sshconn.Conn, o volume.Options, ids uuids) (slave.Tree, error) {
	s, command, streams := c.Session.Slave, agentCommand(o), o.SyncJobs
	hello := agent.Hello{Version: c.Version, Limits: true, Policy: true, Room: true, Promotion: true, Master: ids.master, Session: ids.session, Volume: s.Volume, Path: s.Path,
		Proof: ids.proof, Force: c.Force && (!c.inspect || c.DryRun), Create: !c.inspect, Inspect: c.inspect}
	hello.DryRun = c.DryRun
	if c.inspect {
		streams = 1
	}
	hello.Mode, hello.Compressed = modes[o.Compression], o.Compression != "off"
	live, end := context.WithCancel(context.Background()) // of the whole session
	limit := bandwidth.NewTimed(live, o.BWLimit)
	all := c.lines(conn, o, streams)
	grow := c.ahead(live, all, streams)
	var first *sshconn.Stream
	var opened streamsOf
	group, err := agent.DialGroup(ctx, hello, agent.GroupOptions{
		Streams: streams,
		Open: func(ctx context.Context, number int) (io.ReadWriteCloser, error) {
			stream, err := openStream(ctx, all.of(ctx, number), s, command)
			if err != nil {
				return nil, err
			}
			if number == 0 {
				first = stream
			}
			opened.add(stream)
			return c.wrap(stream, limit), nil
		},
		Why: func(err error) error { return gone(err, opened.ending(), s.Host) },
		OnGrow: func(have int, err error) {
			c.Logger.Debug().Int("streams", have).Msg("the session has all of its streams")
			if have < streams {
				c.Logger.Warn().Int("streams", have).Int("sync-jobs", streams).Err(err).
					Msg("the session goes on with fewer streams than sync-jobs says")
			}
		},
	})
	grown := grow(group)
	if err == nil {
		return &far{Group: group, lines: all, end: end, grown: grown}, nil
	}
	end()
	if first != nil {
		err = explain(err, first, command, s.Host)
		first.Close()
	}
	grown.Wait()
	all.close()
	return nil, err
}

// openStream opens a channel to an agent: by a command where sshd listens, and by the one thing that georep serve has.
func openStream(ctx context.Context, conn *sshconn.Conn, s volume.Slave, command string) (*sshconn.Stream, error) {
	if s.Serve {
		return conn.Subsystem(ctx, "georep")
	}
	return conn.Exec(ctx, command)
}

// ahead asks whether much is to be sent, and makes the connections for it, while the session begins on the first. What it
// returns is called with the session, or nil, and has it open its streams if so; its result is to be waited for once live has
// ended.
func (c *Config) ahead(live context.Context, all *lines, streams int) func(*agent.Group) *sync.WaitGroup {
	var tasks sync.WaitGroup
	begun := make(chan *agent.Group, 1)
	if c.NeedsBulk != nil && streams > 1 {
		tasks.Go(func() {
			if !c.NeedsBulk(live) {
				return
			}
			tasks.Go(func() { all.ahead(live) })
			if group := <-begun; group != nil {
				group.Grow()
			}
		})
	}
	return func(group *agent.Group) *sync.WaitGroup {
		begun <- group
		return &tasks
	}
}

// modes are the values of the option compression but off, which has no chunks at all.
var modes = map[string]compress.Mode{"auto": compress.Auto, "always": compress.Always}

// wrap puts around the bytes of a channel what this end does with them on their way: they are counted as they cross the
// wire, and held to the limit that all channels share.
func (c *Config) wrap(stream io.ReadWriteCloser, limit *bandwidth.Limit) io.ReadWriteCloser {
	return limited{counted{stream, c.Wire}, limit.Writer(counted{stream, c.Wire})}
}

// limited is a stream whose writing is held to a limit.
type limited struct {
	io.ReadWriteCloser
	w io.Writer
}

// Write waits as long as the limit asks for.
func (l limited) Write(p []byte) (int, error) { return l.w.Write(p) }

// far is an agent with the connections it came by. Its Done is closed, and its Err set, when the
// session is lost. Closing it is what ends everything that openAgent began.
type far struct {
	*agent.Group
	lines *lines
	end   func() // of what waits for the bandwidth limit, and of what goes on to open streams
	grown *sync.WaitGroup
}

// Close ends the session, then the connections.
func (r *far) Close() error {
	r.end()
	err := r.Group.Close()
	r.grown.Wait()
	r.lines.close()
	return err
}

// counted counts what crosses a stream.
type counted struct {
	io.ReadWriteCloser
	bytes *atomic.Int64
}

// Read and Write count what really crossed, also with an error.
func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}
