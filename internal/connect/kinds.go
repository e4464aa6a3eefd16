package connect

import (
	"context"

	"georep/slave"
	"georep/slave/disk"
	"georep/slave/sshconn"
	"georep/volume"
)

// kind is a kind of slave. A new one is a package that implements slave.Tree, and a line in kinds.
type kind struct {
	name string
	// serves tells whether the slave of a session is of this kind. The first kind that says so opens it.
	serves  func(volume.Slave, *volume.Options) bool
	open    opener[slave.Tree]
	inspect opener[slave.Reader] // beside the session's worker, to be looked at
}

// opener opens the slave of a session. It gives back a nil interface with an error.
type opener[T slave.Reader] func(context.Context, *Config, volume.Options, uuids) (T, error)

// kinds are all kinds of slaves. The last one serves what no other does.
func kinds() []kind {
	return []kind{
		{"a directory of this host", isLocal, openLocal, inspectLocal},
		{"SFTP alone", isSFTP, overSSH((*Config).openSFTP), overSSH((*Config).inspectSFTP)},
		{"an agent", func(volume.Slave, *volume.Options) bool { return true }, overSSH((*Config).openAgent), overSSH(readerOf((*Config).openAgent))},
	}
}

// kind is that of the session's slave.
func (c *Config) kind(o *volume.Options) *kind {
	all := c.kinds
	if all == nil {
		all = kinds()
	}
	last := len(all) - 1
	for i := range all[:last] {
		if all[i].serves(c.Session.Slave, o) {
			return &all[i]
		}
	}
	return &all[last]
}

// isLocal is for file:// slaves, which need no connection.
func isLocal(s volume.Slave, _ *volume.Options) bool { return s.Local() }

// isSFTP tells whether nothing of ours runs on the slave's host.
func isSFTP(s volume.Slave, o *volume.Options) bool { return s.SFTP || o.Agentless && !s.Serve }

// openLocal opens the directory in this process. There is no agent between, and no policy of
// another host.
func openLocal(_ context.Context, c *Config, _ volume.Options, ids uuids) (slave.Tree, error) {
	tree, err := disk.Open(disk.Options{Path: c.Session.Slave.Path, Master: ids.master, Session: ids.session,
		Proof: ids.proof, Force: c.Force, Create: true, Logger: c.Logger, Version: c.Version})
	if err != nil {
		return nil, err // not tree, which would be no nil interface
	}
	return tree, nil
}

// inspectLocal opens it beside the worker that has it.
func inspectLocal(_ context.Context, c *Config, _ volume.Options, ids uuids) (slave.Reader, error) {
	tree, err := disk.OpenInspector(disk.Options{Path: c.Session.Slave.Path, Master: ids.master, Session: ids.session,
		Proof: ids.proof, Force: c.Force && c.DryRun, DryRun: c.DryRun, Logger: c.Logger, Version: c.Version})
	if err != nil {
		return nil, err // not tree, which would be no nil interface
	}
	return tree, nil
}

// overSSH connects first. The connection is closed where the slave is not opened.
func overSSH[T slave.Reader](begin func(*Config, context.Context, *sshconn.Conn, volume.Options, uuids) (T, error)) opener[T] {
	return func(ctx context.Context, c *Config, o volume.Options, ids uuids) (tree T, err error) {
		conn, err := c.dial(ctx, o)
		if err != nil {
			return tree, err
		}
		if tree, err = begin(c, ctx, conn, o, ids); err != nil {
			conn.Close()
		}
		return tree, err
	}
}

// readerOf has a way to begin a session give what reads alone.
func readerOf(begin func(*Config, context.Context, *sshconn.Conn, volume.Options, uuids) (slave.Tree, error)) func(*Config,
	context.Context, *sshconn.Conn, volume.Options, uuids) (slave.Reader, error) {
	return func(c *Config, ctx context.Context, conn *sshconn.Conn, o volume.Options, ids uuids) (slave.Reader, error) {
		tree, err := begin(c, ctx, conn, o, ids)
		if err != nil {
			return nil, err // not tree, which would be no nil interface
		}
		return tree, nil
	}
}
