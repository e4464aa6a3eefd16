package main

import (
	"github.com/urfave/cli/v2"

	"georep/volume"
)

// resetSyncTime is the flag under its name in GlusterFS.
const resetSyncTime = "reset-sync-time"

func (e *env) deleteCommand() *cli.Command {
	return &cli.Command{Name: "delete", Usage: "forget a session; master and slave keep their data",
		ArgsUsage: "MASTER SLAVE", Action: e.delete, Flags: []cli.Flag{
			&cli.BoolFlag{Name: resetSyncTime,
				Usage: "also forget how far the slave is: the next session compares everything, and sends only the differences"},
			&cli.BoolFlag{Name: purgeMetadata,
				Usage: "remove georep's xattrs and .georep/ from both trees, with the deleted files that are still kept; see georep volume purge"},
			yesFlag()}}
}

// delete touches neither tree, unless it is told to: the records on the slave stay, and a session that is created again goes on from
// them.
func (e *env) delete(c *cli.Context) error {
	t, err := parseTarget(c, 2)
	if err != nil {
		return err
	}
	s, err := t.session()
	if err != nil {
		return err
	}
	if err := sessionFree(t.store, s); err != nil {
		return err
	}
	if c.Bool(purgeMetadata) {
		if err := e.agreed(c, "georep's marks and .georep/ are removed from both trees, with the deleted files that are still kept there. Go on?"); err != nil {
			return err
		}
	}
	if err := t.store.DeleteSession(s.Master, s.Slave); err != nil {
		return err
	}
	if c.Bool(purgeMetadata) {
		return e.purgeBoth(c, t.store, &s)
	}
	if !c.Bool(resetSyncTime) {
		return nil
	}
	// Without a volume mark the next marker takes a new one, which makes every entry newer than its record on a slave.
	_, err = t.store.UpdateVolume(s.Master, func(v *volume.Volume) error {
		v.VolumeMark = 0
		return nil
	})
	return err
}
