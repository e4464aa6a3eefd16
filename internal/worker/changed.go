package worker

import (
	"context"

	"georep/internal/changes"
	"georep/monitor/report"
	"georep/slave"
)

// telling is a slave that notes what is applied to it. Everything else goes straight to the slave.
type telling struct {
	slave.Tree
	changes *changes.Changes
}

// Apply notes what was applied.
func (t telling) Apply(ctx context.Context, batch *slave.Batch) ([]slave.Result, error) {
	before := t.changes.Begin()
	results, err := t.Tree.Apply(ctx, batch)
	t.changes.End(before, batch, results, err)
	return results, err
}

// tellChanges has what is applied told to the monitor, where a hook wants that. Otherwise it costs
// nothing. The function that it returns tells the rest, and waits until that is told.
func tellChanges(c *Config, tree slave.Tree, reports *report.Writer) (slave.Tree, func()) {
	o, err := c.Session.Options()
	if err != nil || !o.Hook.WantsChanged() {
		return tree, func() {}
	}
	list := changes.New()
	return telling{tree, list}, list.Run(func(t changes.Told) error {
		return reports.Changed(report.Changed{All: t.All, Paths: t.Paths, Trees: t.Trees})
	})
}
