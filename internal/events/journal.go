package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	current = "events"     // is written
	older   = "events.old" // was
	// maxFile bounds each of the two files, in bytes.
	maxFile  = 1 << 20
	fileMode = 0o600 // paths are nobody's business but the operator's
)

// File is where the newest events of a directory's journal are.
func File(dir string) string { return filepath.Join(dir, current) }

// Journal is the writer's end. There is one writer a directory: the monitor, which holds the session's pid file. Its
// methods may be called from several goroutines.
type Journal struct {
	dir  string
	most int64

	// mu is held over writes to the files.
	mu   sync.Mutex
	file *os.File // nil where it could not be opened: it is tried again
	size int64    // of whole lines
	last uint64   // the newest sequence number
}

// Open makes dir's journal ready to go on where it stands, and gives the events that are there. floor is a sequence number
// that was seen elsewhere: after a power cut the files may know less. An error leaves a journal that tries again at the next event.
func Open(dir string, floor uint64) (j *Journal, past []Event, err error) {
	return openOf(dir, floor, maxFile)
}

// openOf is Open with a bound that tests set. past has what could be read also where there is an
// error.
func openOf(dir string, floor uint64, most int64) (j *Journal, past []Event, err error) {
	j = &Journal{dir: dir, most: most, last: floor}
	past, err = Read(dir, 0)
	if len(past) > 0 {
		j.last = max(j.last, past[len(past)-1].Seq)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j, past, errors.Join(err, j.open())
}

// open opens the current file and cuts off what follows its last newline. The caller holds mu.
func (j *Journal) open() error {
	if j.file != nil {
		return nil
	}
	f, err := os.OpenFile(File(j.dir), os.O_RDWR|os.O_CREATE|os.O_APPEND, fileMode)
	if err != nil {
		return fmt.Errorf("open the journal of events: %w", err)
	}
	data, err := readAll(f)
	if err == nil {
		j.size = int64(bytes.LastIndexByte(data, '\n') + 1)
		if j.size != int64(len(data)) {
			err = f.Truncate(j.size)
		}
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("open the journal of events: %w", err)
	}
	j.file = f
	return nil
}

// Append numbers an event, gives it the time where it has none, and writes it. It returns the event
// as written. An error means that this event is not in the journal, and that the next one gets its
// number: the caller tries again, or skips it. It does not sync: an event is for people and hooks,
// and nothing that georep promises rests on it.
func (j *Journal) Append(e Event) (Event, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e = e.bounded()
	e.Seq = j.last + 1
	if e.Time.IsZero() {
		e.Time = time.Now().Round(0)
	}
	line, err := json.Marshal(e)
	if err != nil {
		return e, fmt.Errorf("encode an event: %w", err)
	}
	if err := j.write(append(line, '\n')); err != nil {
		return e, fmt.Errorf("write the journal of events: %w", err)
	}
	j.last = e.Seq
	return e, nil
}

// Skip uses n numbers up for events that are lost, so that readers see the gap.
func (j *Journal) Skip(n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last += uint64(n)
}

// write puts a line behind the others. What a full disk left of it is cut off again. The caller holds mu.
func (j *Journal) write(line []byte) error {
	if err := j.open(); err != nil {
		return err
	}
	if j.size > 0 && j.size+int64(len(line)) > j.most {
		if err := j.turnOver(); err != nil {
			return err
		}
	}
	n, err := j.file.Write(line)
	if err == nil {
		j.size += int64(n)
		return nil
	}
	if cut := j.file.Truncate(j.size); n > 0 && cut != nil {
		j.file.Close() // open cuts it off
		j.file = nil
	}
	return err
}

// turnOver begins a new file. The caller holds mu. What the older file held is gone with this.
// Readers that have it open go on with it to its end.
func (j *Journal) turnOver() error {
	if err := os.Rename(File(j.dir), filepath.Join(j.dir, older)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	j.file.Close()
	j.file = nil
	return j.open()
}

// Last is the newest sequence number; 0 before the first event.
func (j *Journal) Last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last
}

// Close closes the files. An event after that opens them again.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}
