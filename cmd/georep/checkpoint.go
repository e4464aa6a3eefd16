package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"georep/volume"
)

// defaultCheckpoint is the name of a checkpoint that is given none.
const defaultCheckpoint = "last"

func (e *env) checkpointCommand() *cli.Command {
	return &cli.Command{Name: "checkpoint", ArgsUsage: "MASTER [SLAVE]", Action: e.checkpoint,
		Usage: "set a moment on the master, and be told when the slave has all up to it",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Value: defaultCheckpoint, Usage: "its `NAME`; it takes the place of one of the same name"},
			&cli.BoolFlag{Name: "delete", Usage: "forget it"},
			&cli.BoolFlag{Name: "list", Usage: "show the session's"},
			jsonFlag(),
		}}
}

// checkpoint sets one at the time of the command: every change that was made before the command began is older.
func (e *env) checkpoint(c *cli.Context) error {
	r, err := existing(c, 2)
	if err != nil {
		return err
	}
	master, slave, name := r.session.Master, r.session.Slave, c.String("name")
	switch {
	case c.Bool("list"):
		return e.listCheckpoints(c, r)
	case c.Bool("delete"):
		if err := r.store.DeleteCheckpoint(master, slave, name); err != nil {
			return err
		}
		_, err := fmt.Fprintf(e.out, "the checkpoint %s is deleted\n", name)
		return err
	}
	at := time.Now().Round(0).UTC()
	if err := r.store.SetCheckpoint(master, slave, name, at); err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(e.out, volume.Checkpoint{Name: name, Time: at})
	}
	_, err = fmt.Fprintf(e.out, "the checkpoint %s is set at %s: georep wait waits for it\n", name, at.Local().Format(timeFormat))
	return err
}

func (e *env) listCheckpoints(c *cli.Context, r *registration) error {
	files := r.files()
	list, err := files.Checkpoints()
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if list == nil {
			list = []volume.Checkpoint{}
		}
		return printJSON(e.out, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(e.out, "no checkpoints")
		return err
	}
	w := tabwriter.NewWriter(e.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tCHECKPOINT TIME\tCOMPLETED\tCOMPLETION TIME")
	for _, one := range list {
		completed, at := "No", "N/A"
		if !one.Completed.IsZero() {
			completed, at = "Yes", one.Completed.Local().Format(timeFormat)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", one.Name, one.Time.Local().Format(timeFormat), completed, at)
	}
	return w.Flush()
}
