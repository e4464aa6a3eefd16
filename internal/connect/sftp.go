package connect

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"georep/internal/bandwidth"
	"georep/slave"
	"georep/slave/sftp"
	"georep/slave/sshconn"
	"georep/volume"
)

// openSFTP begins a session with a slave on which nothing of ours runs, of up to so many SFTP sessions.
func (c *Config) openSFTP(ctx context.Context, conn *sshconn.Conn, o volume.Options, ids uuids) (slave.Tree, error) {
	return overSFTP(ctx, c, conn, o, ids, begin)
}

// inspectSFTP is openSFTP for a session that only looks.
func (c *Config) inspectSFTP(ctx context.Context, conn *sshconn.Conn, o volume.Options, ids uuids) (slave.Reader, error) {
	return overSFTP(ctx, c, conn, o, ids, inspectOver)
}

// overSFTP opens the connections and hands them to begin, which makes the slave of them.
func overSFTP[T slave.Reader](ctx context.Context, c *Config, conn *sshconn.Conn, o volume.Options, ids uuids,
	begin func(context.Context, sftp.Options, *lines, func()) (T, error),
) (none T, err error) {
	s := c.Session.Slave
	if s.Volume != "" {
		return none, fmt.Errorf("%w: there is no agent on %s that could look up the name %q: give a directory, as in %s:/path",
			slave.ErrNoVolume, s.Host, s.Volume, s.Host)
	}
	live, end := context.WithCancel(context.Background()) // of the whole session
	limit := bandwidth.NewTimed(live, o.BWLimit)
	all := c.lines(conn, o, o.SyncJobs)
	var last atomic.Pointer[sshconn.Stream]
	far := c.sftpOptions(all, o, func(s *sshconn.Stream) io.ReadWriteCloser {
		last.Store(s)
		return c.wrap(s, limit)
	})
	far.Master, far.Session, far.Proof, far.Force = ids.master, ids.session, ids.proof, c.Force
	tree, err := begin(ctx, far, all, end)
	if err != nil {
		end()
		if s := last.Load(); s != nil && !isTold(err) {
			said, _ := ending(s) // which is closed
			err = fmt.Errorf("%w%s", err, said)
		}
		return none, err
	}
	return tree, nil
}

// begin opens the slave for good, with its lease.
func begin(ctx context.Context, o sftp.Options, all *lines, end func()) (slave.Tree, error) {
	tree, err := sftp.Open(ctx, o)
	if err != nil {
		return nil, err // not tree, which would be no nil interface
	}
	return &sftpTree{Tree: tree, lines: all, end: end}, nil
}

// inspectOver opens it to be looked at, without a lease.
func inspectOver(ctx context.Context, o sftp.Options, all *lines, end func()) (slave.Reader, error) {
	tree, err := sftp.OpenInspector(ctx, o)
	if err != nil {
		return nil, err
	}
	return &inspector{Inspector: tree, lines: all, end: end}, nil
}

// sftpOptions has the SFTP sessions of a slave spread over its connections. Those that are not on the first come late.
func (c *Config) sftpOptions(all *lines, o volume.Options, wrap func(*sshconn.Stream) io.ReadWriteCloser) sftp.Options {
	s, early := c.Session.Slave, all.onMain(o.SyncJobs)
	return sftp.Options{Path: s.Path, Host: s.Host, Logger: c.Logger, Version: c.Version, Seen: c.Seen,
		Streams: o.SyncJobs, Late: o.SyncJobs - early,
		Open: func(ctx context.Context, number int) (io.ReadWriteCloser, error) {
			line := all.main
			if number >= early {
				line = all.of(ctx, 1+(number-early)%(maxLines-1))
			}
			stream, err := line.Subsystem(ctx, "sftp")
			if err != nil {
				return nil, err
			}
			return wrap(stream), nil
		}}
}

// sftpTree is such a slave with the connections it came by.
type sftpTree struct {
	*sftp.Tree
	lines *lines
	end   func() // of what waits for the bandwidth limit
}

// Close ends the session, then the connections.
func (b *sftpTree) Close() error {
	err := b.Tree.Close()
	b.end()
	b.lines.close()
	return err
}

// inspector is one that is only looked at.
type inspector struct {
	*sftp.Inspector
	lines *lines
	end   func()
}

// Close ends the session, then the connections.
func (l *inspector) Close() error {
	err := l.Inspector.Close()
	l.end()
	l.lines.close()
	return err
}

// Restore copies a slave over SFTP to a local directory, with what only its index has. Of c only Session (where, and how to
// get there), Version and Logger count.
func Restore(ctx context.Context, c Config, dest string) (sftp.Restored, error) {
	o, err := c.Session.Options()
	if err != nil {
		return sftp.Restored{}, err
	}
	s := c.Session.Slave
	if s.Local() || s.Volume != "" {
		return sftp.Restored{}, fmt.Errorf("restore from %s: only slaves over SFTP need it: copy the files of any other, with "+
			"their xattrs, as they are", s)
	}
	conn, err := c.dial(ctx, o)
	if err != nil {
		return sftp.Restored{}, err
	}
	all := c.lines(conn, o, o.SyncJobs)
	defer all.close()
	return sftp.Restore(ctx, c.sftpOptions(all, o, func(s *sshconn.Stream) io.ReadWriteCloser { return s }), dest)
}
