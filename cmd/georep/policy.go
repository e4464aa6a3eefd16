package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"georep/internal/agenthost"
	"georep/slave/policy"
	"georep/status"
	"georep/volume"
)

// policySetting is a row of the listing.
type policySetting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Set   bool   `json:"set"` // by the administrator
	Doc   string `json:"doc"`
}

// volumeSet shows the policy of a volume, one value of it, or changes that.
func (e *env) volumeSet(c *cli.Context) error {
	list := slices.ContainsFunc(policy.Keys(), func(k policy.Key) bool { return k.List && k.Name == c.Args().Get(1) })
	most := 3
	if list {
		most = max(most, c.NArg())
	}
	if err := wants(c, 1, most); err != nil {
		return err
	}
	if err := volume.CheckName(c.Args().First()); err != nil {
		return asUsage(err)
	}
	s, err := store(c)
	if err != nil {
		return err
	}
	v, err := s.Volume(c.Args().First())
	if err != nil {
		return err
	}
	p, err := policy.Parse(v.Policy)
	if err != nil {
		return err
	}
	key, value := c.Args().Get(1), c.Args().Get(2)
	if list && c.NArg() > 3 {
		value = strings.Join(c.Args().Slice()[2:], "\n")
	}
	switch c.Args().Len() {
	case 1:
		return e.listPolicy(c, p, v)
	case 2:
		value, err := p.Get(key)
		if err != nil {
			return asUsage(err)
		}
		if c.Bool("json") {
			return printJSON(e.out, value)
		}
		_, err = fmt.Fprintln(e.out, status.Printable(value))
		return err
	}
	if err := p.Set(key, value); err != nil {
		return asUsage(err)
	}
	if err := volumeFree(s, v); err != nil {
		return err
	}
	value, err = p.Get(key)
	if err != nil {
		return err
	}
	_, err = s.UpdateVolume(v.Name, func(v *volume.Volume) error {
		if v.Policy == nil {
			v.Policy = map[string]string{}
		}
		v.Policy[key] = value
		return nil
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.out, "saved; it counts from a master's next connection")
	return err
}

func (e *env) listPolicy(c *cli.Context, p policy.Policy, v volume.Volume) error {
	var list []policySetting
	for _, k := range policy.Keys() {
		value, err := p.Get(k.Name)
		if err != nil {
			return err
		}
		_, set := v.Policy[k.Name]
		list = append(list, policySetting{k.Name, value, set, k.Doc})
	}
	if c.Bool("json") {
		return printJSON(e.out, list)
	}
	w := tabwriter.NewWriter(e.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tVALUE\tMEANING")
	for _, r := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.Key, status.Printable(r.Value), r.Doc)
	}
	return w.Flush()
}

// volumeLog prints the audit log, oldest first.
func (e *env) volumeLog(c *cli.Context) error {
	s, v, err := volumeArg(c)
	if err != nil {
		return err
	}
	events, err := agenthost.ReadAudit(s.Runtime(v.Name).AgentLog)
	if c.Bool("json") {
		if events == nil {
			events = []agenthost.Event{}
		}
		return firstError(printJSON(e.out, events), err)
	}
	for i := range events {
		if _, err := fmt.Fprintln(e.out, events[i].Time.Local().Format(time.RFC3339), events[i]); err != nil {
			return err
		}
	}
	return err
}
