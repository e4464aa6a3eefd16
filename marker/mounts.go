package marker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"georep/internal/beneath"
	"georep/marker/moment"
	"georep/marker/statefile"
)

// This file is about what other file systems hide. While one is mounted on a directory of the volume, or something is bound
// over a file, no crawl looks beneath it, and the directories above are stamped all the same. So what lies there, and may have
// changed unshipped, is marked anew as a whole once it can be seen again.
//
// What is covered is written down, durably, before a crawl may pass over it (Mounts), and stays there until all of it has been
// marked after the end of the mount was seen, which is written down, too. So a crawl that passed over an entry always comes
// before a scan that marks it, also where the marker was killed in between, or several mounts come and go faster than anybody
// looks.

// cover is what is known of an entry that something is, or was, mounted on. What identifies it is that of the entry beneath.
type cover struct {
	Path []byte        `json:"path"`
	Key  []byte        `json:"key,omitempty"`  // its handle; none where only root may ask for it
	Ino  uint64        `json:"ino,omitempty"`  // its number; 0: not known
	Bare bool          `json:"bare,omitempty"` // nothing is mounted there any more, and it is yet to be marked
	seen moment.Moment // it was covered then
}

// mounts keeps them. It may be used from any goroutine.
type mounts struct {
	root  *beneath.Dir
	path  string
	files statefile.FS

	mu    sync.Mutex
	table *beneath.MountTable
	all   map[string]*cover // by path, but for those whose path something else lies under by now
	// unsaved is set while the file says something else.
	unsaved bool
}

func openMounts(root *beneath.Dir, path string, files statefile.FS) (*mounts, error) {
	m := &mounts{root: root, path: path, files: files, all: map[string]*cover{}}
	list, err := readCovers(files, path)
	if err != nil {
		return nil, err
	}
	for i := range list {
		m.all[string(list[i].Path)] = &list[i]
	}
	if m.table, err = beneath.OpenMountTable(); err != nil {
		return nil, err
	}
	return m, m.refresh()
}

// readCovers reads what save wrote. A file that cannot be understood tells nothing.
func readCovers(files statefile.FS, path string) (list []cover, err error) {
	content, err := files.Read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the record of mounts in the volume: %w", err)
	}
	if err != nil || json.Unmarshal(content, &list) != nil {
		return nil, nil
	}
	return list, nil
}

func (m *mounts) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.table.Close()
}

// refresh compares what is written down with the kernel's table.
func (m *mounts) refresh() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read()
}

// read is refresh with mu held.
func (m *mounts) read() error {
	at := moment.Now()
	m.table.Changed() // what comes from now on is news
	paths, err := m.table.Below(m.root)
	if err != nil {
		return err
	}
	here, changed := map[string]bool{}, false
	for _, path := range paths {
		here[path] = true
		c := m.all[path]
		if c == nil || c.Bare {
			c, changed = m.cover(path, c), true
		}
		c.seen = at
	}
	for path, c := range m.all {
		if !here[path] && !c.Bare {
			c.Bare, changed = true, true
		}
	}
	if !changed && !m.unsaved {
		return nil
	}
	return m.save()
}

// cover notes that path is covered. Where that is not the entry that was there before, that one is yet to be marked.
func (m *mounts) cover(path string, before *cover) *cover {
	c := m.identify(path)
	if before != nil && (c.Ino != before.Ino || !bytes.Equal(c.Key, before.Key)) {
		m.all[fmt.Sprintf("%s\x00%d", path, before.Ino)] = before
	}
	m.all[path] = c
	return c
}

// save makes it durable. What could not be saved is compared, and saved, again.
func (m *mounts) save() error {
	list := make([]*cover, 0, len(m.all))
	for _, c := range m.all {
		list = append(list, c)
	}
	content, err := json.Marshal(list)
	if err == nil {
		err = m.files.Replace(m.path, content, true)
	}
	if m.unsaved = err != nil; m.unsaved {
		return fmt.Errorf("record the mounts in the volume: %w", err)
	}
	return nil
}

// identify looks at what lies beneath a mount, as far as this user may.
func (m *mounts) identify(path string) *cover {
	c := &cover{Path: []byte(path)}
	dir, name := beneath.Split(path)
	if bare, err := m.root.Bare(); err == nil {
		defer bare.Close()
		if d, err := bare.OpenPath(dir); err == nil {
			defer d.Close()
			key, _ := d.Key(name)
			c.Key = []byte(key)
			st, _ := d.Stat(name)
			c.Ino = st.Ino
			return c
		}
	}
	d, err := m.root.OpenDir(dir)
	if err != nil {
		return c
	}
	defer d.Close()
	_ = d.List(func(e beneath.Entry) error { // what it does not tell is not known
		if e.Name == name {
			c.Ino = e.Ino
		}
		return nil
	})
	return c
}

// bare lists what can be seen again and is yet to be marked, by key of all.
func (m *mounts) bare() (map[string]cover, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := map[string]cover{}
	err := m.read() // crawls have to know that before it is marked
	for key, c := range m.all {
		if c.Bare {
			list[key] = *c
		}
	}
	return list, err
}

// marked forgets what has been marked, but not what is covered again.
func (m *mounts) marked(list map[string]cover) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key := range list {
		if c := m.all[key]; c != nil && c.Bare {
			delete(m.all, key)
		}
	}
	return m.save()
}

// some tells whether anything is, or was, mounted in the volume.
func (m *mounts) some() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.all) > 0 || m.unsaved
}

// since is a moment up to which nothing had been uncovered that is yet to be marked; nil: nothing is.
func (m *mounts) since() (first *moment.Moment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.table.Changed() {
		if err := m.read(); err != nil {
			return &moment.Moment{}
		}
	}
	for _, c := range m.all {
		if c.Bare && (first == nil || c.seen.Boot() < first.Boot()) {
			at := c.seen
			first = &at
		}
	}
	return first
}

// Mounts tells what something is mounted on in a volume: as its marker has written that down in its runtime directory, and as
// the kernel's table has it now, of which the marker may not know yet. Its methods may be called from any goroutine.
type Mounts struct {
	path string
	root *beneath.Dir

	mu    sync.Mutex
	table *beneath.MountTable
	// unread tells that the table changed, and could not be read.
	unread bool
	now    []string    // what the table had
	as     os.FileInfo // the file that was read
	list   []cover     // what was in it
	dirs   map[string]map[string]bool
}

// ReadMounts is for the volume with that root, which has to stay open, and that runtime directory. The caller closes it.
func ReadMounts(root *beneath.Dir, dir string) (*Mounts, error) {
	r := &Mounts{path: filepath.Join(dir, mountsFile), root: root}
	var err error
	if r.table, err = beneath.OpenMountTable(); err != nil {
		return nil, err
	}
	if r.now, err = r.table.Below(root); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close ends its use of the kernel's table.
func (r *Mounts) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.table.Close()
}

// Get gives, by directory and name, what something is mounted on: true where the marker knows that, false where it does not
// yet, or where that has ended and it has yet to mark what can be seen again. The result is read only.
func (r *Mounts) Get() map[string]map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if mounted, written := r.look(), r.read(); mounted || written || r.dirs == nil {
		r.merge()
	}
	return r.dirs
}

// look reads the kernel's table anew where it has changed. One that cannot be read is read the next time: the kernel tells of a
// change once.
func (r *Mounts) look() bool {
	if !r.table.Changed() && !r.unread {
		return false
	}
	now, err := r.table.Below(r.root)
	if r.unread = err != nil; !r.unread {
		r.now = now
	}
	return true
}

// read reads what the marker wrote where that is another file than before.
func (r *Mounts) read() bool {
	st, err := os.Stat(r.path)
	if err != nil {
		had := r.as != nil
		r.as, r.list = nil, nil
		return had
	}
	if r.as != nil && os.SameFile(st, r.as) && st.ModTime().Equal(r.as.ModTime()) && st.Size() == r.as.Size() {
		return false
	}
	list, err := readCovers(statefile.FS{}, r.path)
	if err != nil {
		return false
	}
	r.as, r.list = st, list
	return true
}

// merge puts the two together.
func (r *Mounts) merge() {
	r.dirs = map[string]map[string]bool{}
	note := func(path string, known bool) {
		dir, name := beneath.Split(path)
		if r.dirs[dir] == nil {
			r.dirs[dir] = map[string]bool{}
		}
		r.dirs[dir][name] = r.dirs[dir][name] || known
	}
	for _, path := range r.now {
		note(path, false)
	}
	for i := range r.list {
		note(string(r.list[i].Path), !r.list[i].Bare)
	}
}
