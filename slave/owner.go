package slave

import (
	"errors"
	"fmt"
	"time"

	"github.com/pelletier/go-toml/v2"

	"georep/marker/xtime"
)

// Owner is what .georep/owner says, in TOML: whose the slave is, and which one it is. Without it no stamp counts, and one
// that names another slave does not vouch for this one (invariant 16).
type Owner struct {
	Master  xtime.UUID `toml:"master"`
	Session xtime.UUID `toml:"session"`
	Created time.Time  `toml:"created"`
	// Slave names the slave. It is drawn when the slave is taken, so a directory that was taken anew has another one.
	Slave xtime.UUID `toml:"slave"`
	// Root tells what the root is, so that a copy of a slave is not taken for it; "" where that cannot be told.
	Root string `toml:"root,omitempty"`
	// Filter and FilterSince are what the last OpFilter said; "" and 0: nothing was ever left out here.
	Filter      string `toml:"filter,omitempty"`
	FilterSince uint64 `toml:"filter_since,omitempty"`
	// Epoch counts the promotions, and only grows. Promoted is the one that holds; the zero value where none does.
	Epoch uint64 `toml:"epoch,omitempty"`
	// Doubtful: others changed what is there since it was stamped, so nothing on record may be believed, whoever takes it next.
	Doubtful bool      `toml:"doubtful,omitempty"`
	Promoted Promotion `toml:"-"` // in a promoted slave's file Master stands there: see Text
}

// Filtered is the filter on record, as an OpFilter gives it; none where nobody owns the slave. What nobody can read is none that a session may have.
func (o *Owner) Filtered() Record {
	if o == nil || o.Filter == "" && o.FilterSince == 0 {
		return Record{}
	}
	g, err := xtime.ParseGFID(o.Filter)
	if err != nil {
		g = xtime.GFID{0xff}
	}
	return Record{GFID: g, Xtime: xtime.Time(o.FilterSince)}
}

// SetFilter puts a filter on record.
func (o *Owner) SetFilter(r Record) { o.Filter, o.FilterSince = r.GFID.String(), uint64(r.Xtime) }

// promotedFile is what the file of a promoted slave says besides.
type promotedFile struct {
	Promoted *Promotion `toml:"promoted,omitempty"`
}

// errDamaged says that there is an owner's file which nobody can read.
var errDamaged = errors.New("is damaged; remove it, and use --force")

// ParseOwner reads what Text wrote. What earlier versions wrote names no slave.
func ParseOwner(text []byte) (*Owner, error) {
	have := new(Owner)
	var more promotedFile
	if err := errors.Join(toml.Unmarshal(text, have), toml.Unmarshal(text, &more)); err != nil || have.Master.IsZero() {
		return nil, fmt.Errorf("%s/owner %w", Reserved, errDamaged)
	}
	if p := more.Promoted; p != nil {
		if p.Master.IsZero() || p.At.IsZero() {
			return nil, fmt.Errorf("%s/owner %w", Reserved, errDamaged)
		}
		have.Promoted = *p
		have.Promoted.Volume, have.Master = have.Master, p.Master
	}
	return have, nil
}

// Text is the file's form. That of a promoted slave names the volume that it is now where the master stood: versions of georep that
// know of no promotions then refuse the master too, as another one's.
func (o *Owner) Text() ([]byte, error) {
	if !o.Promoted.Holds() {
		return toml.Marshal(o)
	}
	file, p := *o, o.Promoted
	file.Master, p.Master = p.Volume, o.Master
	base, err := toml.Marshal(&file)
	if err != nil {
		return nil, err
	}
	more, err := toml.Marshal(promotedFile{Promoted: &p})
	return append(base, more...), err
}

// Proof is what the master keeps of the slave that a session has filled, so that it takes nothing else for it.
type Proof struct {
	Filled bool       // the slave was in use: a root without an owner is not that slave
	Slave  xtime.UUID // its name; zero where an earlier version filled it
}

// Claim is who wants a slave, and by what right.
type Claim struct {
	Master, Session xtime.UUID
	Proof           Proof
	Force           bool
	// Inspect: the slave is only to be looked at. The master of a promoted slave may do that.
	Inspect bool
}

// Admit decides by the owner on record, nil where there is none, and by what the root is, "" where that cannot be told. anew
// says that the slave is to be taken as if nobody had ever filled it, whatever is on record in it; where have is nil it has
// to be empty besides, or Force said. A promoted slave is admitted to nobody who would write to it, whatever Force says: the word of
// the slave's host is above the master's.
func (c *Claim) Admit(have *Owner, same func(root string) bool) (anew bool, err error) {
	if have != nil && have.Promoted.Holds() && !(c.Inspect && have.Master == c.Master) {
		return false, have.Promoted.refuse()
	}
	var why error
	switch known := c.Proof.Slave; {
	case have == nil && c.Proof.Filled:
		why = fmt.Errorf("%w: nothing in this directory says that it was one, though this session has filled it; its disk is "+
			"probably not mounted", ErrAbsent)
	case have == nil:
		return true, nil
	case have.Master != c.Master:
		why = fmt.Errorf("%w (volume %s): use another directory, or --force to take it over", ErrForeign, have.Master)
	case have.Doubtful:
		return true, nil
	case !known.IsZero() && have.Slave != known && !(have.Slave.IsZero() && have.Session == c.Session):
		why = fmt.Errorf("%w: another slave of this volume is in its place (%s, not %s)", ErrAbsent, have.Slave, known)
	case have.Root != "" && !same(have.Root):
		if !c.Proof.Filled {
			return true, nil
		}
		why = fmt.Errorf("%w: a copy of it is in its place", ErrAbsent)
	}
	if why != nil && c.Force {
		return true, nil
	}
	return false, withRemedy(why)
}

// withRemedy says what the operator can do about a slave that is not there.
func withRemedy(err error) error {
	if !errors.Is(err, ErrAbsent) {
		return err
	}
	return fmt.Errorf("%w; bring the slave back, and replication goes on by itself; or use --force to begin anew with what is "+
		"there", err)
}

// Gone is the error for a root that is not at its path any more, while a session runs or when one begins.
func Gone(cause error) error {
	return withRemedy(fmt.Errorf("%w: %w", ErrAbsent, cause))
}

// Next is the owner to put on record for c, and whether that differs from what is there.
func (c *Claim) Next(have *Owner, anew bool, root string) (next Owner, differs bool) {
	next = Owner{Master: c.Master, Session: c.Session, Root: root, Created: time.Now().UTC().Truncate(time.Second)}
	if !anew && have != nil {
		next.Slave, next.Filter, next.FilterSince = have.Slave, have.Filter, have.FilterSince
	}
	if !anew && next.Slave.IsZero() {
		next.Slave = c.Proof.Slave
	}
	if next.Slave.IsZero() {
		next.Slave = xtime.NewUUID()
	}
	if have == nil {
		return next, true
	}
	next.Epoch = have.Epoch
	was := *have
	was.Created = next.Created
	return next, was != next
}
