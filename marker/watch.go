package marker

import (
	"context"
	"encoding/binary"
	"errors"

	"georep/internal/beneath"
	"georep/marker/fanotify"
	"georep/marker/inotify"
	"georep/marker/xtime"
)

// watched is the directories that inotify watches. Their keys are their watches.
type watched struct{ src *inotify.Source }

func watchKey(id inotify.ID) beneath.HandleKey {
	return beneath.HandleKey(binary.NativeEndian.AppendUint32(nil, uint32(id)))
}

func watchID(k beneath.HandleKey) inotify.ID {
	if len(k) != 4 {
		return -1
	}
	return inotify.ID(binary.NativeEndian.Uint32([]byte(k)))
}

func (w watched) key(d *beneath.Dir) (beneath.HandleKey, error) {
	id, err := w.src.Key(d)
	return watchKey(id), err
}

func (w watched) dir(k beneath.HandleKey) (*beneath.Dir, error) { return w.src.Dir(watchID(k)) }

func (w watched) number(k beneath.HandleKey) (uint64, bool) { return w.src.Number(watchID(k)) }

func (w watched) reopen(k beneath.HandleKey) (*beneath.Dir, error) { return w.src.Open(watchID(k)) }

func (w watched) chain(k beneath.HandleKey) ([]beneath.HandleKey, error) {
	ids, err := w.src.Chain(watchID(k))
	var keys []beneath.HandleKey
	for _, id := range ids {
		keys = append(keys, watchKey(id))
	}
	return keys, err
}

func (w watched) parent(k beneath.HandleKey) (beneath.HandleKey, bool) {
	up, known := w.src.Parent(watchID(k))
	return watchKey(up), known
}

func (w watched) top() beneath.HandleKey { return watchKey(w.src.Root()) }

func (watched) gfid(_ beneath.HandleKey, d *beneath.Dir) xtime.GFID {
	if d == nil {
		return xtime.GFID{}
	}
	g, err := d.GFID("")
	if err != nil {
		return xtime.GFID{}
	}
	return g
}

func (w watched) expect(d *beneath.Dir) { w.src.Expect(d) }

func (watched) moved() {} // the source sees to that

func (watched) letGo(bool) {} // and to this

func (watched) close() {} // so it does to its descriptors

// watch makes a handler of inotify's events, after all of the tree is watched. From then on marks are made so that their
// own events are dropped.
func watch(ctx context.Context, c *core, b *beats) (*live, error) {
	warn := func(err error) { c.Log.Warn().Err(err).Msg("inotify") }
	src, err := inotify.Open(c.Root, c.Names.Xtime, warn)
	if err != nil {
		return nil, err
	}
	src.Overflowed = func() { c.counts.overflows.Add(1) }
	if err := src.Watch(ctx); err != nil {
		return nil, errors.Join(err, src.Close())
	}
	c.tree = watched{src}
	set := c.set
	c.set = func(d *beneath.Dir, name string, t xtime.Time) error {
		return src.Quietly(d, name, func(d *beneath.Dir, name string) error { return set(d, name, t) })
	}
	l := newLive(c, src, b)
	l.read = func() (int, error) { return src.Read(l.takeWatch) }
	l.more = func() (bool, error) { return l.adopt(src) }
	l.unsure = src.Busy
	return l, nil
}

// adopt marks what the source finds in directories that are new. The error is the source's, or the clock's.
func (l *live) adopt(src *inotify.Source) (left bool, err error) {
	failure := error(nil)
	left, err = src.Adopt(func(e inotify.Event) {
		if failure == nil {
			l.takeWatch(e)
			failure = l.markFull()
		}
	})
	return left, errors.Join(err, failure)
}

// takeWatch turns one event of inotify into places to mark.
func (l *live) takeWatch(e inotify.Event) {
	switch e.Kind {
	case inotify.Lost:
		l.lost()
	case inotify.Blind:
		l.blind()
	case inotify.Moved:
		l.scans.Moving.Add(watchKey(e.Dir))
	case inotify.Left:
		l.scans.Cover.Leave(e.Inode)
	default:
		at := fanotify.Place{Dir: watchKey(e.Dir), Name: e.Name}
		l.batch.add(at)
		l.batch.tell(fanotify.Place{Dir: at.Dir, Name: e.Told})
		if e.Unclear {
			l.batch.moved(at.Dir, "")
		}
	}
}
