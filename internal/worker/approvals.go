package worker

import (
	"errors"
	"maps"
	"time"

	"github.com/rs/zerolog"

	"georep/crawler/limit"
	"georep/volume"
)

// approvals keeps in the registry what a session was refused to remove, where `georep approve` finds it and approves it. One
// crawl at a time uses it.
type approvals struct {
	store   *volume.Store
	session volume.Session
	log     zerolog.Logger
	noted   *limit.Purge // what this process was refused last
	clear   bool         // nothing is in the registry
}

// newApprovals begins with a look at the registry, whatever an earlier worker left there.
func newApprovals(c *Config) *approvals {
	return &approvals{store: c.Store, session: c.Session, log: c.Logger}
}

// Approved is limit.Approvals'. Trouble with the registry counts as no approval: the crawl is
// refused again, and asks at its next try.
func (a *approvals) Approved() *limit.Purge {
	p, err := a.store.Purge(a.session.Master, a.session.Slave)
	if err != nil && !errors.Is(err, volume.ErrNoPurge) {
		a.log.Warn().Err(err).Msg("the approval of removals cannot be read")
	}
	if err != nil || p.Approved == nil {
		return nil
	}
	a.log.Info().Int64("entries", p.Entries).Time("approved", *p.Approved).Msg("approved removals are carried out")
	return &limit.Purge{Emptied: p.Emptied, Entries: p.Entries, Keys: p.Keys, More: p.More}
}

// Done is limit.Approvals'. The registry is looked at where something may be in it only.
func (a *approvals) Done() {
	if a.clear {
		return
	}
	if err := a.store.ForgetPurge(a.session.Master, a.session.Slave); err != nil {
		a.log.Warn().Err(err).Msg("the approval of removals cannot be cleared")
		return
	}
	a.clear, a.noted = true, nil
}

// refused notes what a crawl that ended with err did not remove, if that is why. It writes only
// where that differs from what it wrote before, since a refused crawl repeats.
func (a *approvals) refused(err error) {
	p := limit.Refused(err)
	if p == nil || a.noted != nil && a.noted.More == p.More && maps.Equal(a.noted.Keys, p.Keys) {
		return
	}
	out := volume.Purge{At: time.Now().UTC().Truncate(time.Second), Emptied: p.Emptied, Entries: p.Entries, Before: p.Before,
		Had: p.Had, Percent: p.Percent, Free: p.Free, Keys: p.Keys, More: p.More}
	for _, it := range p.Items {
		out.Items = append(out.Items, volume.NewPurgeItem(it.Path, it.Entries, it.Dir))
	}
	a.clear = false
	if err := a.store.RefusePurge(a.session.Master, a.session.Slave, out); err != nil {
		a.log.Warn().Err(err).Msg("the refused removals cannot be recorded for georep approve")
		return
	}
	a.noted = p
}
