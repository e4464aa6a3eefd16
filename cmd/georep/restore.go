package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"georep/internal/connect"
	"georep/slave"
	"georep/status"
	"georep/volume"
)

func (e *env) restoreCommand() *cli.Command {
	return &cli.Command{Name: "restore", ArgsUsage: "SLAVE DIRECTORY", Flags: sessionFlags(), Action: e.restore,
		Usage: "copy a slave over SFTP to a new directory here, with what only its index holds; no session is needed"}
}

// restore needs no registry: the master's host may be what was lost.
func (e *env) restore(c *cli.Context) error {
	if err := wants(c, 2, 2); err != nil {
		return err
	}
	from, err := volume.ParseSlave(c.Args().Get(0))
	if err != nil {
		return asUsage(err)
	}
	s := volume.Session{Slave: from, Config: map[string]string{}}
	if err := applyFlags(c, &s); err != nil {
		return err
	}
	seen := &slave.Seen{}
	show := e.showSeen(seen, func() int64 { return 0 })
	r, err := connect.Restore(c.Context, connect.Config{Session: s, Version: version(), Logger: e.logger(c), Seen: seen}, c.Args().Get(1))
	show.end()
	if err != nil {
		return err
	}
	fmt.Fprintf(e.out, "%d entries, %s of content\n", r.Entries, status.Bytes(r.Bytes))
	if r.Unknown > 0 {
		fmt.Fprintf(e.err, "%d entries are not in the index, and have the attributes of their files\n", r.Unknown)
	}
	if len(r.Kept) > 0 {
		return fmt.Errorf("not all could be set: %w", r.Kept[0])
	}
	return nil
}
