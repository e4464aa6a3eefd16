package events

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// followEvery is how often a follower looks for news: one system call.
const followEvery = 250 * time.Millisecond

// readTries is how often Read begins again because the files turned over under it.
const readTries = 5

// Read returns the events after sequence number since, oldest first: all that are there where since is 0. A directory
// without a journal has none. Lines that make no sense are passed over.
func Read(dir string, since uint64) ([]Event, error) {
	var list []Event
	for range readTries {
		now, err := os.Open(File(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the journal of events: %w", err)
		}
		var again bool
		list, again, err = readBoth(dir, now, since)
		now.Close()
		if err != nil {
			return nil, fmt.Errorf("read the journal of events: %w", err)
		}
		if !again {
			break
		}
	}
	return list, nil
}

// readBoth reads the older file and then now, which may be nil. again: the files turned over meanwhile, so that there may be more.
func readBoth(dir string, now *os.File, since uint64) (list []Event, again bool, err error) {
	before, err := os.ReadFile(filepath.Join(dir, older))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	list = parse(nil, before, since)
	if now == nil {
		return list, false, nil
	}
	data, err := readAll(now)
	if err != nil {
		return nil, false, err
	}
	have, err := now.Stat()
	if err != nil {
		return nil, false, err
	}
	there, err := os.Stat(File(dir))
	return parse(list, data, since), err != nil || !os.SameFile(have, there), nil
}

// parse adds the events of whole lines that come after since and after those in list. A number that
// goes back, as after a registry was restored, is passed over until it is beyond what was read.
func parse(list []Event, data []byte, since uint64) []Event {
	if n := len(list); n > 0 {
		since = max(since, list[n-1].Seq)
	}
	for {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		if !whole {
			return list
		}
		data = rest
		var e Event
		if json.Unmarshal(line, &e) != nil || e.Seq <= since || e.Kind == "" {
			continue
		}
		since = e.Seq
		list = append(list, e)
	}
}

// readAll reads one file of a journal from its beginning.
func readAll(f *os.File) ([]byte, error) {
	// Twice the bound: a file that somebody else made longer is not read into memory whole.
	return io.ReadAll(io.NewSectionReader(f, 0, 2*maxFile))
}

// Follow gives each event after since to each, oldest first, also those to come, until ctx ends,
// which gives nil, or each fails, which gives its error. lost is how many events in between are not
// there any more. It waits for a journal that is not there, and goes on through trouble with the
// files. It looks for news four times a second. each is called from the goroutine that called
// Follow, without any lock, and may take its time: the journal waits for nobody, and what turns
// over meanwhile counts as lost.
func Follow(ctx context.Context, dir string, since uint64, each func(e Event, lost uint64) error) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	f := follower{dir: dir, since: since, any: since > 0}
	for {
		list, err := f.news()
		for _, e := range list {
			var lost uint64
			if f.any {
				lost = e.Seq - f.since - 1
			}
			f.since, f.any = e.Seq, true
			if ctx.Err() != nil {
				return nil
			}
			if err := each(e, lost); err != nil {
				return err
			}
		}
		if err == nil && len(list) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Tail gives what is new in a journal from one look to the next. It is for one goroutine. News
// after an error begins where the call before it did.
type Tail struct{ f follower }

// NewTail begins after a sequence number; 0 is the beginning of what is there.
func NewTail(dir string, since uint64) *Tail {
	return &Tail{follower{dir: dir, since: since, any: since > 0}}
}

// News gives the events that came since the last call, oldest first. After the first two calls it costs what is new; where nothing is,
// one system call.
func (t *Tail) News() ([]Event, error) {
	list, err := t.f.news()
	if n := len(list); n > 0 {
		t.f.since, t.f.any = list[n-1].Seq, true
	}
	return list, err
}

// follower remembers how far it has read, so that news costs what is new.
type follower struct {
	dir    string
	since  uint64      // the last event that was told
	any    bool        // it counts what is missing after that
	file   fs.FileInfo // as it was read last
	offset int64       // of the line in it that comes next
}

// news reads what was added since the last time. An error leaves the follower where it was, so the
// next call reads the same again.
func (f *follower) news() ([]Event, error) {
	fi, err := os.Stat(File(f.dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	before := f.file
	if before != nil && os.SameFile(before, fi) && fi.Size() >= f.offset {
		if fi.Size() == before.Size() && fi.ModTime().Equal(before.ModTime()) {
			return nil, nil
		}
		return f.added(fi)
	}
	list, err := Read(f.dir, f.since)
	if err == nil {
		// The next look reads this file once more from its beginning; what was told is passed over.
		f.file, f.offset = fi, 0
	}
	return list, err
}

// added reads what stands behind what was read before.
func (f *follower) added(now fs.FileInfo) ([]Event, error) {
	file, err := os.Open(File(f.dir))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	have, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(have, now) { // it turned over just now
		f.file = nil
		return nil, nil
	}
	data, err := io.ReadAll(io.NewSectionReader(file, f.offset, 2*maxFile))
	if err != nil {
		return nil, err
	}
	f.file = now
	f.offset += int64(bytes.LastIndexByte(data, '\n') + 1)
	list := parse(nil, data, f.since)
	if f.any && len(list) > 0 && list[0].Seq != f.since+1 {
		// Something is lost, or the files turned over twice since, and this one has the number of one that was removed.
		return Read(f.dir, f.since)
	}
	return list, nil
}
