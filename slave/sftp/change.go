package sftp

import (
	"errors"
	"sync"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/index"
)

// changer makes changes: it notes them in the journal, brings them to the index, and makes both
// durable. Changes of different places may be made at the same time; the caller sees to it that
// nobody else changes the same place (busy).
type changer struct {
	*records
	listings *listings // are told of every change
	journal  *index.Journal
	logs     [2]*logFile
	flushMu  sync.Mutex // held by flush

	shardDirs sync.Map // directories of index/ that are there; path -> struct{}
	// changedMu guards changed, the directories that were changed since they were last made durable.
	changedMu sync.Mutex
	changed   map[string]struct{}
}

func newChanger(r *records, l *listings) *changer {
	return &changer{records: r, listings: l, changed: map[string]struct{}{}}
}

// change notes that the entry of a place is about to become another, makes the change, and puts the
// entry into the index, in this order: a cut at any moment leaves a note that says which entry may
// be wrong. to is nil for none. A name that neither the index nor the journal has needs no note: it
// has no record before, and none after a cut.
func (ch *changer) change(p place, to *index.Entry, do func() error) error {
	return ch.changes([]step{{p, to}}, do)
}

// step is a place and its entry after a change; nil for none.
type step struct {
	place
	to *index.Entry
}

// changes is change for several places that change together, as a move does: one note, one change,
// then the entries. After an error that leaves in doubt what was done, none of them is on record.
func (ch *changer) changes(steps []step, do func() error) error {
	var intents []index.Intent
	for _, s := range steps {
		_, ok, err := ch.idx.Get(s.dir, s.name)
		if err != nil {
			return err
		}
		if !ok && !ch.journal.Has(s.dir, s.name) {
			continue
		}
		in := index.Intent{Dir: s.dir, Name: s.name, Gone: s.to == nil}
		if s.to != nil {
			in.Record, in.ID = s.to.Record, s.to.ID
		}
		intents = append(intents, in)
	}
	done, err := ch.journal.Note(intents)
	if err != nil {
		return err
	}
	// After carry: the note counts as needed until the index has the outcome.
	defer done()
	if err = ch.carry(steps, do); certain(err) {
		ch.noteAsIs(intents...)
	}
	return err
}

// noteAsIs says of names, to which nothing else is done meanwhile, that what was noted of them did not come about, so that their
// entries count after a cut too. Where it cannot be written they are compared.
func (ch *changer) noteAsIs(intents ...index.Intent) {
	for i := range intents {
		in := &intents[i]
		e, ok, err := ch.idx.Get(in.Dir, in.Name)
		if err != nil {
			return
		}
		in.Gone, in.Record, in.ID = !ok, e.Record, e.ID
	}
	if done, err := ch.journal.Note(intents); err == nil {
		done()
	}
}

// carry makes a change that is noted. Where it is not known whether the change was made, the
// entries are dropped, and the crawler compares what is there; where it certainly was not, they
// stay.
func (ch *changer) carry(steps []step, do func() error) (err error) {
	for _, s := range steps {
		ch.listings.changing(s.path)
	}
	if err := do(); err != nil {
		// Whether it was made is not known: then the entries are dropped, which has the crawler compare what is
		// there.
		if !certain(err) {
			for _, s := range steps {
				err = errors.Join(err, ch.idx.Delete(s.dir, s.name))
			}
		}
		return err
	}
	for _, s := range steps {
		// Before the entry is in the index: see write.
		ch.touched(s.path)
		if s.to == nil {
			err = ch.idx.Delete(s.dir, s.name)
		} else {
			err = ch.idx.Set(s.dir, s.name, *s.to)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// noted is the note of an operation that was made ahead, while its content is staged: the two round
// trips then cost the time of one. The zero value is none. It is the item's; only ready may be
// waited for from elsewhere.
type noted struct {
	// intent is what was foreseen; it is used only if the operation turns out to make just that.
	intent index.Intent
	ready  chan struct{} // closed once the note is written; then err and done are set
	done   func()
	err    error
	used   bool // the change was made, or tried
}

// noteAhead notes what a new content is to become, where it takes the place of an older one of its inode and nothing before it
// in the batch is about the same: it is staged meanwhile. Everything else is noted by change.
func (it *item) noteAhead(ch *changer) {
	op := it.op
	if op.Kind != slave.OpPut || op.Uploaded || len(it.after) > 0 || op.Links > 1 || op.Record.GFID.IsZero() {
		return
	}
	dir, name := beneath.Split(op.Path)
	id, err := ch.idOf(dir)
	if id == 0 || err != nil {
		return
	}
	old, ok, err := ch.idx.Get(id, name)
	if err != nil || !ok || old.Record.GFID != op.Record.GFID {
		return
	}
	n := &it.noted
	n.intent = index.Intent{Dir: id, Name: name, Record: ch.entryFor(op, slave.File, it.end.Torn).Record, ID: index.NewID()}
	n.ready = make(chan struct{})
	go func() {
		defer close(n.ready)
		n.done, n.err = ch.journal.Note([]index.Intent{n.intent})
	}()
}

// is tells whether this very change is noted, after the note is written.
func (n *noted) is(p place, e *index.Entry) (bool, error) {
	want := index.Intent{Dir: p.dir, Name: p.name, Record: e.Record, ID: e.ID}
	if n.ready == nil || n.intent != want {
		return false, nil
	}
	<-n.ready
	n.used = true
	return true, n.err
}

// end says that the change was made, or that nothing comes of it. Then the note is taken back, so
// that the entry that stands there counts after a cut. It is called once for each item.
func (n *noted) end(pub *publisher) {
	if n.ready == nil {
		return
	}
	<-n.ready
	if n.done == nil {
		return
	}
	if in := n.intent; !n.used {
		free := pub.busy.lockName(place{dir: in.Dir, name: in.Name})
		pub.noteAsIs(in)
		free()
	}
	n.done()
}
