package main

import (
	"errors"
	"fmt"
	"os/user"
	"strings"

	"github.com/urfave/cli/v2"

	"georep/internal/agenthost"
	"georep/internal/strip"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/disk"
	"georep/status"
	"georep/volume"
)

// failover are the commands by which a slave and its master change places.
type failover struct{ *env }

func (e failover) promoteCommand() *cli.Command {
	return &cli.Command{Name: "promote", ArgsUsage: "VOLUME|PATH", Action: e.promote,
		Usage: "on the slave's host: make a slave the writable side, and refuse its master from then on",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Usage: "end a session that is connected, and take a copy that is not complete"},
			yesFlag(),
			&cli.BoolFlag{Name: "json", Usage: "one JSON object; needs --yes"},
		}}
}

func (e failover) demoteCommand() *cli.Command {
	return &cli.Command{Name: "demote", ArgsUsage: "VOLUME|PATH", Action: e.demote,
		Usage: "on the slave's host: give a promoted slave back to its master, which overwrites what was changed there",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Usage: "end a session that is connected"},
			yesFlag(),
			&cli.BoolFlag{Name: "json", Usage: "one JSON object; needs --yes"},
		}}
}

// promotion is what promote and demote say in JSON.
type promotion struct {
	Slave    string      `json:"slave"`
	Path     string      `json:"path"`
	Promoted bool        `json:"promoted"`
	Already  bool        `json:"already,omitempty"`
	Epoch    uint64      `json:"epoch"`
	At       status.Time `json:"at"`
	By       string      `json:"by"`
	Master   string      `json:"master"` // uuid of the volume that is fenced, or was
	// Has is the moment that the copy has as a whole; null where a first sync had not ended.
	Has     status.Time `json:"has"`
	Partial int         `json:"partial"`
	Parked  int         `json:"parked"`
}

// hostSlave is a slave that a command on its own host names.
type hostSlave struct {
	store  *volume.Store
	volume volume.Volume // without a name where it is in no registry
	owner  *slave.Owner
}

// name is the slave as its host calls it.
func (h *hostSlave) name() string {
	if h.volume.Name != "" {
		return h.volume.Name
	}
	return h.volume.Path
}

// hostSlaveArg finds the slave that the one argument names: a volume of this host, or a directory.
func hostSlaveArg(c *cli.Context) (*hostSlave, error) {
	if err := wants(c, 1, 1); err != nil {
		return nil, err
	}
	if c.Bool("json") && !c.Bool("yes") {
		return nil, usagef("--json needs --yes: there is no place for a question in it")
	}
	m, err := volume.ParseMaster(c.Args().First())
	if err != nil {
		return nil, asUsage(err)
	}
	s, err := store(c)
	if err != nil {
		return nil, err
	}
	v, err := s.Master(m)
	switch {
	case errors.Is(err, volume.ErrNoVolume) && m.Path != "":
		v = volume.Volume{Path: m.Path, UUID: xtime.NewUUID().String()}
	case err != nil:
		return nil, err
	}
	owner, err := strip.Owner(v.Path)
	if err != nil {
		return nil, fmt.Errorf("slave %s: %w", status.Printable(v.Path), err)
	}
	if owner == nil {
		return nil, fmt.Errorf("%s is no slave: nobody replicates into it; this command is for the host of the slave", status.Printable(v.Path))
	}
	return &hostSlave{store: s, volume: v, owner: owner}, nil
}

// options says who does what with the slave.
func (h *hostSlave) options(c *cli.Context) (disk.PromoteOptions, error) {
	id, err := xtime.ParseUUID(h.volume.UUID)
	return disk.PromoteOptions{Path: h.volume.Path, Volume: id, By: whoAmI(), Force: c.Bool("force")}, err
}

// whoAmI names the operator, as far as that can be told.
func whoAmI() string {
	me, err := user.Current()
	if err != nil {
		return "an unknown user"
	}
	return me.Username
}

// record puts what was done into the log of what masters do with the slave: the master's refusals stand there, too.
func (h *hostSlave) record(kind string, p *slave.Promotion) {
	agenthost.Record(h.store, h.volume.Name, agenthost.Event{Event: kind, Slave: h.name(), Master: p.Master.String(),
		Session: h.owner.Session.String(), Login: whoAmI(), Reason: fmt.Sprintf("epoch %d; it has %s", p.Epoch, p.Has())})
}

// promote is one durable step (disk.Promote). All else it does is to ask and to tell.
func (e failover) promote(c *cli.Context) error {
	h, err := hostSlaveArg(c)
	if err != nil {
		return err
	}
	if p := h.owner.Promoted; !p.Holds() && !c.Bool("yes") {
		if err := e.agreed(c, fmt.Sprintf("%s is a slave of the master volume %s.\nOnce it is promoted nothing from there is taken any more, until you say "+
			"georep demote here.\nPromote it?", status.Printable(h.name()), h.owner.Master)); err != nil {
			return err
		}
	}
	o, err := h.options(c)
	if err != nil {
		return err
	}
	p, err := disk.Promote(c.Context, o)
	if err != nil {
		return err
	}
	if !p.Already {
		h.record(agenthost.Promoted, &p.Promotion)
	}
	if c.Bool("json") {
		return printJSON(e.out, h.json(&p.Promotion, true, &p))
	}
	_, err = fmt.Fprint(e.out, h.promotedText(&p))
	return err
}

func (h *hostSlave) json(p *slave.Promotion, holds bool, more *disk.Promoted) promotion {
	out := promotion{Slave: h.name(), Path: h.volume.Path, Promoted: holds, Epoch: p.Epoch, At: status.Time{Time: p.At}, By: p.By,
		Master: p.Master.String()}
	if p.Stime != 0 {
		out.Has = status.Time{Time: p.Stime.Time()}
	}
	if more != nil {
		out.Already, out.Partial, out.Parked = more.Already, more.Partial, more.Parked
	}
	return out
}

// promotedText says what the operator has now, and what not.
func (h *hostSlave) promotedText(p *disk.Promoted) string {
	var b strings.Builder
	name := status.Printable(h.name())
	if p.Already {
		fmt.Fprintf(&b, "%s was promoted already, at %s by %s (epoch %d).\n", name, p.At.Local().Format(timeFormat), status.Printable(p.By), p.Epoch)
	} else {
		fmt.Fprintf(&b, "%s is promoted (epoch %d): it takes nothing from the master volume %s any more.\n", name, p.Epoch, p.Master)
	}
	if p.Stime == 0 {
		b.WriteString("The first sync had not ended: the copy is not complete.\n")
	} else {
		fmt.Fprintf(&b, "It has all that the master had at %s.\nOf what the master wrote later a part may be here, and the rest is not.\n",
			p.Stime.Time().Local().Format(timeFormat))
	}
	if p.Partial > 0 {
		fmt.Fprintf(&b, "%s had arrived in part: here is the content from before.\n", count(p.Partial, "file", "files"))
	}
	if p.Parked > 0 {
		fmt.Fprintf(&b, "%s that had left the master's tree: they are kept in %s/.georep/parked.\n", count(p.Parked, "entry", "entries"),
			status.Printable(h.volume.Path))
	}
	if h.volume.Name == "" {
		fmt.Fprintf(&b, "To replicate it from here: georep start %s HOST:PATH\n", name)
	} else {
		fmt.Fprintf(&b, "To replicate it from here: georep start %s HOST::VOLUME\n", name)
	}
	return b.String()
}

// count is a number with its noun.
func count(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// demote is one durable step, too (disk.Demote).
func (e failover) demote(c *cli.Context) error {
	h, err := hostSlaveArg(c)
	if err != nil {
		return err
	}
	if p := &h.owner.Promoted; !p.Holds() {
		return fmt.Errorf("%s is not promoted: it follows the master volume %s", status.Printable(h.name()), h.owner.Master)
	}
	if err := h.noMaster(); err != nil {
		return err
	}
	if !c.Bool("yes") {
		if err := e.agreed(c, fmt.Sprintf("What was changed in %s since %s is overwritten by the master volume\n%s as soon as its session runs.\n"+
			"Give it back?", status.Printable(h.name()), h.owner.Promoted.At.Local().Format(timeFormat), h.owner.Master)); err != nil {
			return err
		}
	}
	o, err := h.options(c)
	if err != nil {
		return err
	}
	was, err := disk.Demote(c.Context, o)
	if err != nil {
		return err
	}
	h.record(agenthost.Demoted, &was)
	if c.Bool("json") {
		return printJSON(e.out, h.json(&was, false, nil))
	}
	_, err = fmt.Fprintf(e.out, "%s follows the master volume %s again. Its session goes on by itself where it runs,\n"+
		"and compares all of it by contents first.\n", status.Printable(h.name()), was.Master)
	return err
}

// noMaster refuses to give back what others replicate from: they would get the old master's state without a word.
func (h *hostSlave) noMaster() error {
	sessions, err := h.store.Sessions()
	if err != nil {
		return err
	}
	for _, s := range sessions {
		if h.volume.Name != "" && s.Master == h.volume.Name {
			return fmt.Errorf("%s is replicated to %s: delete that session first with georep delete %s %s", status.Printable(h.name()),
				status.Printable(s.Slave.String()), s.Master, s.Slave)
		}
	}
	return nil
}
