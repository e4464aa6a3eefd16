package sftp

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sync/errgroup"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// indexOf names the slave that the index is of, and goes where that goes.
const indexOf = indexDir + "/slave"

// setup does all of Open but connect, as much of it as it can at the same time. What can be refused without a trace is refused
// before anything is made in the root; the lease comes before all that another holder would mind.
func (t *Tree) setup(ctx context.Context) error {
	if err := t.own.openRoot(); err != nil {
		return err
	}
	have, _, err := t.own.checkOwner()
	if err != nil {
		return err
	}
	if have == nil {
		if err := t.ensureDir(slave.Reserved); err != nil {
			return t.unfit(err)
		}
	}
	if err := together(func() error { return t.own.takeLease(ctx) }, t.makeAreas); err != nil {
		return t.unfit(err)
	}
	var inPark []string
	look := func() error { return t.lookAround(&inPark) }
	err = together(t.openRecords, t.clearStaging, t.probeFile, t.probeLink, look)
	if err == nil {
		err = t.changes.mendTimes() // which has to know what times the server keeps
	}
	if err == nil {
		err = t.park.noteLeftover(inPark)
	}
	if err != nil {
		return t.unfit(err)
	}
	t.info.Version, t.info.Namespace, t.info.Root, t.info.Path = t.o.Version, xtime.Trusted, t.feat.uid == 0, t.abs("")
	t.info.Links, t.info.NoPlaces, t.info.ReadsBack, t.info.Parked = t.first().CanLink(), true, true, t.park.count.Load()
	return nil
}

// together does several things at once and gives the first error.
func together(parts ...func() error) error {
	g := new(errgroup.Group)
	for _, part := range parts {
		g.Go(part)
	}
	return g.Wait()
}

// makeAreas makes what lies in .georep.
func (t *Tree) makeAreas() error {
	g := new(errgroup.Group)
	for _, dir := range []string{stagingDir, partialDir, parkedDir, trashDir, indexDir} {
		g.Go(func() error { return t.ensureDir(dir) })
	}
	return g.Wait()
}

// clearStaging removes what a cut left there, and nothing of this session.
func (t *Tree) clearStaging() error {
	clear := new(errgroup.Group)
	clear.SetLimit(asksAtOnce)
	err := t.list(stagingDir, func(n wire.Name) error {
		if !strings.HasPrefix(n.Name, t.prefix) {
			clear.Go(func() error { return ignoreAbsent(t.any().Remove(t.abs(stagingDir + "/" + n.Name))) })
		}
		return nil
	})
	return errors.Join(err, clear.Wait())
}

// openRecords makes sure once more whose the slave is, for somebody else may have taken it before the lease was ours, puts the
// owner on record, opens the index and drops from it what the journal says may be wrong. An index that is not this slave's,
// or that stands where nobody owns the slave, counts for nothing (invariant 16).
func (t *Tree) openRecords() error {
	t.idx = index.New(newStore(t.changes))
	var have *slave.Owner
	var anew bool
	var of []byte
	journals := make([][]byte, len(logNames))
	read := func() (err error) { have, anew, err = t.own.checkOwner(); return err }
	readOf := func() (err error) { of, err = t.readSmall(indexOf); return ignoreAbsent(err) }
	if err := together(read, readOf, func() error { return t.readJournals(journals) }, t.preload); err != nil {
		return err
	}
	next, differs := t.own.claim().Next(have, anew, "")
	t.info.Slave, t.info.Filter, t.own.owner = next.Slave, next.Filtered(), next
	unnamed := have != nil && have.Slave.IsZero() // an earlier version's
	if anew || !unnamed && strings.TrimSpace(string(of)) != next.Slave.String() {
		if err := t.forgetIndex(); err != nil {
			return err
		}
		t.idx, journals, differs = index.New(newStore(t.changes)), nil, true
	}
	own := func() error { return nil }
	if differs {
		own = func() error { return t.own.writeOwner(&next) }
	}
	return together(own, func() error { return t.openIndex(journals) })
}

// openIndex drops from the index what the journals say may be wrong, and begins new ones.
func (t *Tree) openIndex(journals [][]byte) error {
	dropped, err := t.idx.Recover(journals...)
	if err != nil {
		return err
	}
	if dropped > 0 {
		if err := t.idx.Flush(nil); err != nil {
			return err
		}
		t.log.Info().Int("entries", dropped).Msg("the last session was cut off: these are compared again")
	}
	_, ok, err := t.idx.Get(index.Top, index.TopName)
	if err == nil && !ok {
		err = t.idx.Set(index.Top, index.TopName, index.Entry{Kind: slave.Dir, ID: index.Root})
	}
	if err != nil {
		return err
	}
	if err := t.changes.beginJournal(journals); err != nil {
		return err
	}
	return t.idx.Each(index.Parked, func(name string, e index.Entry) bool {
		if e.Virtual {
			t.park.count.Add(1)
		}
		if e.Kind == slave.Dir {
			t.park.inDirs.add(name, e.ID)
		}
		return true
	})
}

// lookAround learns how much room there is, and what is parked.
func (t *Tree) lookAround(inPark *[]string) error {
	total, size := int64(0), 0
	parked := func() error {
		return t.list(parkedDir, func(n wire.Name) error {
			total++
			if size += len(n.Name); size <= maxParkText {
				*inPark = append(*inPark, n.Name)
			} else {
				t.park.leftMany.Store(true)
			}
			return nil
		})
	}
	partial := func() error { return t.list(partialDir, func(wire.Name) error { t.park.count.Add(1); return nil }) }
	err := together(t.own.room, parked, partial)
	t.park.count.Add(total)
	return err
}

// maxParkText bounds the names in the park that are kept in memory while a slave is opened: those of some 100,000 entries.
const maxParkText = 4 << 20
