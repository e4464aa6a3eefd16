package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"georep/internal/service"
	"georep/status"
	"georep/volume"
)

// maxPurged is how many entries of a purge are named for people; --json names those that the crawl kept.
const maxPurged = 20

func (e *env) approveCommand() *cli.Command {
	return &cli.Command{Name: "approve", ArgsUsage: "MASTER [SLAVE]", Action: e.approve,
		Usage: "show the removals that max-delete holds back, and allow exactly those, once",
		Flags: []cli.Flag{
			yesFlag(),
			&cli.BoolFlag{Name: "json", Usage: "one JSON object; without --yes it only shows"},
		}}
}

func yesFlag() cli.Flag { return &cli.BoolFlag{Name: "yes", Usage: "do not ask"} }

// pendingPurge is what approve --json says.
type pendingPurge struct {
	Master string `json:"master"`
	Slave  string `json:"slave"`
	volume.Purge
	Keys *struct{} `json:"keys,omitempty"` // not for others
	// Items is here for its place in the output.
	Items []volume.PurgeItem `json:"items"`
}

// approve lets go what was shown, and nothing that came to it since: the registry tells by its ID.
func (e *env) approve(c *cli.Context) error {
	r, err := existing(c, 2)
	if err != nil {
		return err
	}
	p, err := r.store.Purge(r.session.Master, r.session.Slave)
	if err != nil {
		return err
	}
	if !c.Bool("json") {
		if err := showPurge(e.out, r, &p); err != nil {
			return err
		}
	}
	if p.Approved == nil && (c.Bool("yes") || !c.Bool("json")) {
		if err := e.agreed(c, "Let these be removed?"); err != nil {
			return err
		}
		if err := r.approve(c, &p); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return printJSON(e.out, pendingPurge{Master: r.session.Master, Slave: r.session.Slave.String(), Purge: p, Items: p.Items})
	}
	when := "at the next start or sync"
	if _, running := status.Running(r.files().Pid); running {
		when = "with its next crawl"
	}
	_, err = fmt.Fprintf(e.out, "approved at %s: they are removed %s, once\n", p.Approved.Local().Format(timeFormat), when)
	return err
}

// timeFormat shows the zone too.
const timeFormat = "2006-01-02 15:04:05 MST"

// approve saves the operator's word, by the service where it runs.
func (r *registration) approve(c *cli.Context, p *volume.Purge) error {
	var err error
	if s := service.Dial(r.store); s != nil {
		err = s.Approve(c.Context, r.session, p.ID)
	} else {
		err = r.store.ApprovePurge(r.session.Master, r.session.Slave, p.ID)
	}
	if err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Second)
	p.Approved = &now
	return nil
}

// showPurge says what would go.
func showPurge(w io.Writer, r *registration, p *volume.Purge) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s -> %s: %d entries would be removed from the slave", status.Printable(r.session.Master),
		status.Printable(r.session.Slave.String()), p.Entries)
	if p.Had > 0 {
		fmt.Fprintf(&b, ", of about %d", p.Had)
	}
	switch {
	case p.Emptied:
		b.WriteString(".\nThe master is empty. Is its file system mounted?\n")
	case p.Percent == 0:
		b.WriteString(".\nmax-delete is 0: none goes without your word.\n")
	default:
		fmt.Fprintf(&b, ".\nmax-delete is %d %%, and %d may go in any case.\n", p.Percent, p.Free)
	}
	if p.Before > 0 {
		fmt.Fprintf(&b, "%d went within a minute before.\n", p.Before)
	}
	fmt.Fprintf(&b, "Known from the crawl that was refused them at %s:\n", p.At.Local().Format(timeFormat))
	shown := int64(0)
	for i := range p.Items[:min(len(p.Items), maxPurged)] {
		it := &p.Items[i]
		shown += it.Entries
		if it.Dir {
			fmt.Fprintf(&b, "  %q and all in it, %d entries\n", it.Name(), it.Entries)
		} else {
			fmt.Fprintf(&b, "  %q\n", it.Name())
		}
	}
	if more := p.Entries - shown; more > 0 {
		fmt.Fprintf(&b, "  ... and %d more entries\n", more)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// agreed asks, where somebody is there to answer; elsewhere it wants --yes.
func (e *env) agreed(c *cli.Context, question string) error {
	if c.Bool("yes") {
		return nil
	}
	if !terminal(os.Stdin) {
		return errors.New("nothing was done: there is no terminal to ask on; give --yes to confirm")
	}
	fmt.Fprintf(e.err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(io.LimitReader(os.Stdin, 64)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was done")
}
