package index

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"sync"

	"georep/slave"
)

// Log is one of the two files of a journal. Its methods are called by one goroutine at a time.
type Log interface {
	// Append writes behind what was written, durably where it can.
	Append(text []byte) error
	// Clear empties the file.
	Clear() error
}

// Intent says that the entry of a name is about to become another, with what stands under it.
type Intent struct {
	// Dir and Name say which entry; the rest is enough to tell whether it became what it was to become.
	Dir    ID
	Name   string
	Record slave.Record // that the entry will have
	ID     ID
	Gone   bool // it will have none
}

// Journal notes changes before they are made. What it has is needed until the index was flushed after them: then the one
// of its files that is not written to is cleared. All methods may be called from many goroutines.
type Journal struct {
	// One is written to while the notes in the other wait for a flush that makes them needless.
	logs [2]Log

	// mu guards all below it, and is given up while a log is written.
	mu      sync.Mutex
	now     int     // the log that is written to
	open    [2]int  // notes of changes under way
	used    [2]bool // logs with something in them
	about   [2]map[spot]struct{}
	turns   uint64  // how often a log was begun
	next    *commit // what waits for the one that is being written
	writing bool
}

// spot is a name in a directory.
type spot struct {
	dir  ID
	name string
}

// commit is what several callers have written at once.
type commit struct {
	// text is the notes, encoded; at is the log that they are written to, known once they are.
	text  []byte
	about []spot
	notes int
	at    int
	done  chan struct{}
	err   error
}

// NewJournal makes one on two empty logs. They were begun later than any whose turn is not above the one given: a log that was emptied,
// and is there again after a power cut, must not pass for the newer one.
func NewJournal(a, b Log, turn uint64) *Journal { return &Journal{logs: [2]Log{a, b}, turns: turn} }

// TurnOf tells which in turn a log is. Of one without a note it is 0.
func TurnOf(text []byte) uint64 {
	for _, in := range decodeIntents(text) {
		if in.Dir == 0 {
			return uint64(in.ID)
		}
	}
	return 0
}

// Note writes the intents down. done must be called once the changes, and those of the index, are made; of a change that
// failed the entry must have been taken out of the index by then, or what it is noted anew.
func (j *Journal) Note(intents []Intent) (done func(), err error) {
	if len(intents) == 0 {
		return func() {}, nil
	}
	text := encodeIntents(intents)
	j.mu.Lock()
	// Whoever comes while a log is written shares the next write: one round trip, whatever their number.
	if j.next == nil {
		j.next = &commit{done: make(chan struct{})}
	}
	c := j.next
	c.text, c.notes = append(c.text, text...), c.notes+1
	for i := range intents {
		c.about = append(c.about, spot{intents[i].Dir, intents[i].Name})
	}
	if !j.writing {
		j.write()
	}
	j.mu.Unlock()
	<-c.done
	if c.err != nil {
		return nil, c.err
	}
	return sync.OnceFunc(func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.open[c.at]--
	}), nil
}

// write writes what waits until nothing does. j.mu is held, and given up while it writes.
func (j *Journal) write() {
	j.writing = true
	for j.next != nil {
		c := j.next
		j.next, c.at = nil, j.now
		if j.about[c.at] == nil {
			j.about[c.at] = map[spot]struct{}{}
		}
		for _, s := range c.about {
			j.about[c.at][s] = struct{}{}
		}
		if !j.used[c.at] { // a log says first which in turn it is
			j.turns++
			c.text = append(encodeIntents([]Intent{{ID: ID(j.turns)}}), c.text...)
		}
		j.used[c.at] = true
		j.open[c.at] += c.notes
		j.mu.Unlock()
		c.err = j.logs[c.at].Append(c.text)
		j.mu.Lock()
		if c.err != nil {
			j.open[c.at] -= c.notes
		}
		close(c.done)
	}
	j.writing = false
}

// Has tells whether there is a note about a name. Then every further change of that needs one, also where the index has nothing under
// it: the last note says what the entry is to be.
func (j *Journal) Has(dir ID, name string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, about := range j.about {
		if _, has := about[spot{dir, name}]; has {
			return true
		}
	}
	return false
}

// Turn is called before a flush. It gives what is to be called after it, once it succeeded, and before the next Turn:
// flushes come one at a time.
func (j *Journal) Turn() (flushed func() error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	old := 1 - j.now
	if !j.used[old] {
		j.now, old = old, j.now
	}
	// A change that is under way may reach the index after the flush, so its note has to stay for the next one.
	if !j.used[old] || j.open[old] > 0 {
		return func() error { return nil }
	}
	return func() error {
		if err := j.logs[old].Clear(); err != nil {
			return err
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		j.used[old], j.about[old] = false, nil
		return nil
	}
}

// encodeIntents frames a list: its length, its checksum, and the intents.
func encodeIntents(intents []Intent) []byte {
	b := make([]byte, 8, 8+64*len(intents))
	for i := range intents {
		n := &intents[i]
		gone := byte(0)
		if n.Gone {
			gone = 1
		}
		b = append(b, gone)
		b = append(binary.AppendUvarint(b, uint64(n.Dir)), n.Record.GFID[:]...)
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(n.Record.Xtime)), uint64(n.ID))
		b = appendText(b, n.Name)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-8))
	binary.BigEndian.PutUint32(b[4:], crc32.ChecksumIEEE(b[8:]))
	return b
}

// decodeIntents reads lists as far as they are whole: what a cut tore was never begun.
func decodeIntents(text []byte) (all []Intent) {
	for len(text) >= 8 {
		n := binary.BigEndian.Uint32(text)
		if uint64(n) > uint64(len(text)-8) || n == 0 {
			return all
		}
		body := text[8 : 8+n]
		if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(text[4:]) {
			return all
		}
		r := reader{b: body}
		for len(r.b) > 0 {
			in := r.intent()
			if r.bad {
				return all
			}
			all = append(all, in)
		}
		text = text[8+n:]
	}
	return all
}

// intent is the reverse of what encodeIntents writes of one.
func (r *reader) intent() (in Intent) {
	in.Gone = r.byte() != 0
	in.Dir = ID(r.number())
	copy(in.Record.GFID[:], r.take(16))
	in.Record.Xtime = timeOf(r.number())
	in.ID = ID(r.number())
	in.Name = string(r.text())
	return in
}

// became tells whether an entry is what the change was to make of it, or that with another xtime: what gives it one later, as a
// stamp does, or takes it away, changes nothing of what has this number.
func (in *Intent) became(e *Entry) bool {
	if in.Gone || e.ID != in.ID {
		return false
	}
	return e.Record == in.Record || in.ID != 0 && e.Record.GFID == in.Record.GFID
}

// Recover takes out of the index what the logs of a journal say may be wrong: entries that are not what they were to become in
// the end. Whether the change itself was made is not known, so what stands there has to be compared.
func (x *Index) Recover(logs ...[]byte) (dropped int, err error) {
	for _, last := range lastOf(logs) {
		for at, in := range last {
			e, ok, err := x.Get(at.dir, at.name)
			if err != nil {
				return dropped, err
			}
			if !ok || in.became(&e) {
				continue
			}
			dropped++
			if err := x.Delete(at.dir, at.name); err != nil {
				return dropped, err
			}
		}
	}
	return dropped, nil
}

// lastOf gives the last intent about each name, of all logs together. Where it is not known which of them is older, as of those of an
// earlier version, an entry has to be what each says.
func lastOf(logs [][]byte) (all []map[spot]Intent) {
	var turns []ID
	for _, text := range logs {
		turn, last := ID(0), map[spot]Intent{}
		for _, in := range decodeIntents(text) {
			if in.Dir == 0 {
				turn = in.ID // see write
				continue
			}
			last[spot{in.Dir, in.Name}] = in
		}
		if len(last) == 0 {
			continue
		}
		all, turns = append(all, last), append(turns, turn)
	}
	if len(all) != 2 || turns[0] == 0 || turns[1] == 0 {
		return all
	}
	older, newer := all[0], all[1]
	if turns[0] > turns[1] {
		older, newer = newer, older
	}
	maps.Copy(older, newer)
	return []map[spot]Intent{older}
}
