package slave

import (
	"fmt"
	"time"

	"georep/marker/xtime"
)

// Promotion is what .georep/owner says of a slave that was made the writable side. It fences the master: nothing that comes from it is
// taken any more, until somebody gives the slave back on its own host.
type Promotion struct {
	At time.Time `toml:"at"` // UTC
	By string    `toml:"by"` // the user on the slave's host, for people
	// Master is the volume that is fenced, and Volume what the slave is now. They are equal in no file.
	Master xtime.UUID `toml:"master"`
	Volume xtime.UUID `toml:"-"`
	// Stime is the stamp that the root had then: all that the master had at that time is there. 0 where a first sync had not ended.
	Stime xtime.Time `toml:"stime"`
	// Epoch is the owner's, once more for people.
	Epoch uint64 `toml:"epoch"`
}

// Holds tells whether there is a promotion.
func (p *Promotion) Holds() bool { return !p.At.IsZero() }

// Has is the moment that the copy has, for people.
func (p *Promotion) Has() string {
	if p.Stime == 0 {
		return "no moment of the master as a whole"
	}
	return "all that the master had at " + p.Stime.Time().UTC().Format(promotionFormat)
}

const promotionFormat = "2006-01-02 15:04:05 UTC"

// String is when it was made, by whom, and the how-manieth it is; "" for none.
func (p *Promotion) String() string {
	if !p.Holds() {
		return ""
	}
	return fmt.Sprintf("promoted at %s by %s on its host (epoch %d)", p.At.UTC().Format(promotionFormat), p.By, p.Epoch)
}

// refuse is what a master is told.
func (p *Promotion) refuse() error {
	return fmt.Errorf("%w at %s by %s on its host (epoch %d): it takes nothing from this master any more, whatever --force says; "+
		"see docs/recovery.md for the ways back", ErrPromoted, p.At.UTC().Format(promotionFormat), p.By, p.Epoch)
}

// Promote gives the owner of the slave once it is promoted. The volume is what the slave is from then on.
func (o *Owner) Promote(p Promotion, volume xtime.UUID) Owner {
	next := *o
	next.Epoch++
	p.Master, p.Volume, p.Epoch = o.Master, volume, next.Epoch
	next.Promoted = p
	return next
}

// Demote gives the owner of a promoted slave once it is its master's again. What was changed in it meanwhile has the stamps of before, so
// none of them may be believed; for versions of georep that know no doubtful slaves it has another name.
func (o *Owner) Demote() Owner {
	next := *o
	next.Promoted, next.Slave, next.Doubtful = Promotion{}, xtime.NewUUID(), true
	return next
}
