package volume

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Purge is what a session was refused to remove from its slave, until the operator approves it or
// it is needed no more. It is a file of its own in the session's directory, and JSON that commands
// show with --json.
type Purge struct {
	ID       string      `json:"id"` // stands for what would go
	At       time.Time   `json:"known_since"`
	Approved *time.Time  `json:"approved,omitempty"`
	Emptied  bool        `json:"master_empty,omitempty"` // everything would go, as the master is empty
	Entries  int64       `json:"entries"`
	Before   int64       `json:"removed_before"` // within a minute before that
	Had      int64       `json:"had,omitempty"`  // about how many the slave has had
	Percent  int         `json:"max_delete"`
	Free     int64       `json:"free_deletes"`
	Items    []PurgeItem `json:"items"` // those with the most entries
	Keys     PurgeKeys   `json:"keys,omitempty"`
	More     int64       `json:"more,omitempty"` // entries of what is not among Keys
}

// PurgeItem is an entry that would go.
type PurgeItem struct {
	Path    string `json:"path"`
	Bytes   []byte `json:"path_bytes,omitempty"` // where the path is not UTF-8
	Entries int64  `json:"entries"`
	Dir     bool   `json:"directory,omitempty"`
}

// NewPurgeItem keeps a path of any bytes.
func NewPurgeItem(path string, entries int64, dir bool) PurgeItem {
	it := PurgeItem{Path: path, Entries: entries, Dir: dir}
	if text := strings.ToValidUTF8(path, "\uFFFD"); text != path {
		it.Path, it.Bytes = text, []byte(path)
	}
	return it
}

// Name is the path as it is on the slave.
func (it *PurgeItem) Name() string {
	if len(it.Bytes) > 0 {
		return string(it.Bytes)
	}
	return it.Path
}

// PurgeKeys says of how many entries each part of a purge consists; it is packed in JSON.
type PurgeKeys map[uint64]int64

const keySize = 16

// MarshalJSON packs them in the order of the keys.
func (k PurgeKeys) MarshalJSON() ([]byte, error) {
	packed := make([]byte, 0, keySize*len(k))
	for _, key := range slices.Sorted(maps.Keys(k)) {
		packed = binary.BigEndian.AppendUint64(packed, key)
		packed = binary.BigEndian.AppendUint64(packed, uint64(k[key]))
	}
	return json.Marshal(packed)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (k *PurgeKeys) UnmarshalJSON(b []byte) error {
	var packed []byte
	if err := json.Unmarshal(b, &packed); err != nil {
		return err
	}
	if len(packed)%keySize != 0 {
		return fmt.Errorf("%d bytes of keys", len(packed))
	}
	*k = make(PurgeKeys, len(packed)/keySize)
	for ; len(packed) > 0; packed = packed[keySize:] {
		(*k)[binary.BigEndian.Uint64(packed)] = int64(binary.BigEndian.Uint64(packed[8:]))
	}
	return nil
}

// identify gives a purge an ID that it shares with no other one. Which entries, and how many, are
// in it, but not the time: the same purge has the same ID at every crawl.
func (p *Purge) identify() error {
	packed, err := p.Keys.MarshalJSON()
	if err != nil {
		return err
	}
	h := fnv.New64a()
	h.Write(packed)
	fmt.Fprint(h, p.Entries, p.More, p.Emptied)
	p.ID = hex.EncodeToString(h.Sum(nil))
	return nil
}

// ErrNoPurge: the session was refused nothing.
var ErrNoPurge = errors.New("nothing is pending")

// purgeFile is where a session's is.
func (f *Files) purgeFile() string { return filepath.Join(f.Dir, "purge") }

// Purge returns what a session was refused to remove; ErrNoPurge where that is nothing. It takes no
// lock. Two calls may give two purges, each of which was true.
func (s *Store) Purge(master string, slave Slave) (Purge, error) {
	var p Purge
	files := s.Files(master, slave)
	data, err := os.ReadFile(files.purgeFile())
	if errors.Is(err, fs.ErrNotExist) {
		return p, kindf(ErrNoPurge, "session %s to %q has no removals to approve: nothing is pending", master, slave)
	}
	if err != nil {
		return p, s.stateError("read what is pending", err)
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, fmt.Errorf("read %s: %w (the file is damaged: remove it, the next crawl writes it anew)", files.purgeFile(), err)
	}
	return p, nil
}

// RefusePurge notes what a session was refused to remove. What was approved before is not approved
// any more, unless it is the same. It is called by the worker after a crawl that was refused.
func (s *Store) RefusePurge(master string, slave Slave, p Purge) error {
	if err := p.identify(); err != nil {
		return err
	}
	return s.changePurge(master, slave, func(was *Purge) (*Purge, error) {
		if was != nil && was.ID == p.ID {
			return was, nil
		}
		return &p, nil
	})
}

// ApprovePurge lets what a session was refused go once. It fails where that is no more what the ID
// stands for. It approves exactly what the operator was shown, by its ID.
func (s *Store) ApprovePurge(master string, slave Slave, id string) error {
	return s.changePurge(master, slave, func(was *Purge) (*Purge, error) {
		switch {
		case was == nil:
			return nil, kindf(ErrNoPurge, "nothing is pending any more for session %s to %q", master, slave)
		case was.ID != id:
			return nil, fmt.Errorf("the pending removals of session %s to %q have changed meanwhile: look at them again", master, slave)
		}
		now := time.Now().UTC().Truncate(time.Second)
		was.Approved = &now
		return was, nil
	})
}

// ForgetPurge is for a session that is refused nothing. It is called after each crawl that stamps
// the root, so it costs one look where nothing is pending.
func (s *Store) ForgetPurge(master string, slave Slave) error {
	files := s.Files(master, slave)
	if _, err := os.Lstat(files.purgeFile()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return s.changePurge(master, slave, func(*Purge) (*Purge, error) { return nil, nil })
}

// changePurge replaces what is noted, under the registry's lock. nil stands for nothing. change is
// given nil for nothing, and may be called once.
func (s *Store) changePurge(master string, slave Slave, change func(*Purge) (*Purge, error)) error {
	return s.locked(func() error {
		if _, err := s.Session(master, slave); err != nil {
			return err
		}
		files := s.Files(master, slave)
		var was *Purge
		if p, err := s.Purge(master, slave); err == nil {
			was = &p
		}
		now, err := change(was)
		if err != nil || now == was && now != nil && was.Approved == nil {
			return err
		}
		if now == nil {
			return removeDurable(files.purgeFile())
		}
		data, err := json.Marshal(now)
		if err != nil {
			return err
		}
		if err := writeDurable(files.purgeFile(), data); err != nil {
			return s.stateError("note what is pending", err)
		}
		return nil
	})
}
