package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"georep/internal/agenthost"
	"georep/status"
)

// showIncoming prints who replicates into this host. With --incoming it is all that is printed.
func (e *env) showIncoming(c *cli.Context, list []agenthost.Incoming) error {
	if c.Bool("json") {
		if list == nil {
			list = []agenthost.Incoming{}
		}
		return printJSON(e.out, list)
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(e.out, "no master replicates to this host")
		return err
	}
	return writeIncoming(e.out, list)
}

// writeIncoming is a table for people; below it stands why somebody was turned away.
func writeIncoming(out io.Writer, list []agenthost.Incoming) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "SLAVE\tFROM\tMASTER VOLUME\tSTATE\tSINCE\tLAST_SYNCED")
	for i := range list {
		in := &list[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", status.Printable(in.Slave), status.Printable(from(in)), status.Printable(in.Master),
			stateOf(in), at(in.Since), at(in.LastSynced))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for i := range list {
		if in := &list[i]; in.Refused != "" {
			if _, err := fmt.Fprintf(out, "\n%s: %s\n", status.Printable(in.Slave), status.Printable(status.OneLine(in.Refused))); err != nil {
				return err
			}
		}
	}
	return nil
}

func at(t status.Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return t.Local().Format(time.DateTime + " MST")
}

func from(in *agenthost.Incoming) string {
	if in.From == "" {
		return "this host"
	}
	return in.From
}

func stateOf(in *agenthost.Incoming) string {
	switch {
	case !in.Promoted.IsZero():
		return "promoted"
	case in.Connected:
		return "connected"
	case in.Refused != "":
		return "refused"
	}
	return "not connected"
}
