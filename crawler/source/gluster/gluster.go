// Package gluster reads a GlusterFS volume as a master: a source.Source on a mount of its own. The volume keeps xtimes by itself, so no
// marker runs. It owns the mount, and changes nothing in the volume.
//
// What an ordinary mount shows is not always what is there. With a pair of bricks down its names are missing, and not even an error tells
// (Intact); the xtime of a directory is the latest of its bricks, by their clocks, so that a change may not raise it (Window); a file may
// have changed under the same ctime, size and mtime (a version is an xtime).
package gluster

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"georep/crawler/plan"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// Source is a volume, or a directory of it, during one pass. What it does not answer itself a local tree does, which reads the volume's
// xtimes by their names and GlusterFS's own GFIDs (beneath.Dir.GFID). It is safe for concurrent use, and nothing in it changes.
type Source struct {
	source.Source
	mount  *Mount
	begun  subvolumes    // when the pass began
	window time.Duration // Window, but in tests
	names  xtime.Names   // of the volume's own xtimes
}

// Window is how much earlier than now a stamp has to be. By then every brick has marked what was done before, also if its clock is that
// much behind another's.
const Window = 5 * time.Second

// Opener begins passes over the volume, or over a directory of it: the Config's Root, which Open has given. Its Names and VolumeMark do not
// count, since the volume has its own. window is Window but in tests. The error is ErrNotMaster while a subvolume is down, or the volume
// cannot be asked.
func (m *Mount) Opener(window time.Duration) source.Opener {
	return func(c *source.Config) (source.Source, error) {
		// Before anything is read. A new set of bricks has to be told anew that the latest xtime counts.
		begun, err := m.subvolumes()
		if err == nil {
			err = begun.whole(m)
		}
		if err == nil {
			err = m.look()
		}
		if err != nil {
			return nil, away(m, err)
		}
		own := *c
		own.Names, own.VolumeMark = xtime.NamesFor(xtime.Trusted, m.ID), m.Mark
		own.Native = &source.Native{Entry: ownEntry, Attr: ownAttr}
		local, err := source.OpenLocal(&own)
		if err != nil {
			return nil, err
		}
		return &Source{Source: local, mount: m, begun: begun, window: window, names: own.Names}, nil
	}
}

// away is ErrNotMaster for an error of the volume.
func away(m *Mount, err error) error {
	if errors.Is(err, source.ErrNotMaster) {
		return err
	}
	return fmt.Errorf("%w: the volume %s: %w", source.ErrNotMaster, m.Volume, err)
}

// ownEntry tells of the volume's own directories in its root, of which ordinary mounts show none: where a heal keeps inodes whose names it
// does not know, and the ways to the state of the client and to inodes by GFID.
func ownEntry(name string) bool {
	return strings.HasPrefix(name, ".glusterfs-anonymous-inode-") || name == ".meta" || name == ".gfid"
}

// ownAttr tells of xattrs by which the volume is kept: times, which copies are behind, and where on the bricks something lies.
func ownAttr(name string) bool {
	for _, prefix := range []string{"trusted.glusterfs.", "trusted.afr.", "trusted.gfid", "glusterfs."} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// subvolumes is what the layer that spreads names over bricks knows of those: which have an answer, and a count that rises whenever one of
// them goes or comes.
type subvolumes struct {
	generation uint64
	down       string // names of those that do not answer
}

// subvolumes reads it: one file of the client's, which asks no brick, so that it may be asked before every batch. A client of which it cannot
// be read is not believed to see all.
func (m *Mount) subvolumes() (s subvolumes, err error) {
	text, err := os.ReadFile(filepath.Join(m.graph(m.Volume+"-dht"), "private"))
	if err != nil {
		return s, fmt.Errorf("ask its client which bricks answer: %w", err)
	}
	return parseSubvolumes(string(text))
}

// parseSubvolumes reads what the layer tells, as lines of "key = value". A subvolume is listed twice, first with its type before its name. What
// does not tell of each whether it answers is an error: nothing could be concluded from it.
func parseSubvolumes(text string) (s subvolumes, err error) {
	names, known := map[string]string{}, 0
	var down []string
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		index := strings.TrimSuffix(key[strings.IndexByte(key, '[')+1:], "]")
		switch {
		case key == "gen":
			if s.generation, err = strconv.ParseUint(value, 10, 64); err != nil {
				return s, fmt.Errorf("the count of changes of its bricks: %w", err)
			}
		case strings.HasPrefix(key, "subvolumes[") && names[index] == "":
			names[index] = value[strings.IndexByte(value, '.')+1:]
		case strings.HasPrefix(key, "subvolume_status["):
			if known++; value != "1" {
				down = append(down, names[index])
			}
		}
	}
	if known == 0 || known != len(names) || s.generation == 0 {
		return s, fmt.Errorf("its client tells of %d of %d subvolumes: this version of GlusterFS is not known", known, len(names))
	}
	s.down = strings.Join(down, ", ")
	return s, nil
}

// whole is nil if all answer. Of a pair, or of a set that has parity, one brick is enough.
func (s subvolumes) whole(m *Mount) error {
	if s.down == "" {
		return nil
	}
	bricks := strings.Join(m.downBricks(), ", ")
	return fmt.Errorf("%w: of the volume %s a brick is down, and what it has is not seen: %s; bring it back (gluster volume start %s force), and "+
		"replication goes on by itself", source.ErrNotMaster, m.Volume, cmp.Or(bricks, s.down), m.Volume)
}

// downBricks names the bricks that this mount has no connection to, for people, as far as its client tells.
func (m *Mount) downBricks() (down []string) {
	clients, err := filepath.Glob(m.graph(m.Volume + "-client-*"))
	if err != nil {
		return nil
	}
	for _, c := range clients {
		state, err := os.ReadFile(filepath.Join(c, "private"))
		if err != nil || !strings.Contains(string(state), "connected = 0") {
			continue
		}
		host, herr := os.ReadFile(filepath.Join(c, "options/remote-host"))
		brick, berr := os.ReadFile(filepath.Join(c, "options/remote-subvolume"))
		if herr == nil && berr == nil {
			down = append(down, strings.TrimSpace(string(host))+":"+strings.TrimSpace(string(brick)))
		}
	}
	return down
}

// Intact implements source.Source. A subvolume that went and came back during the pass was missing from lists.
func (s *Source) Intact() error {
	now, err := s.mount.subvolumes()
	if err != nil {
		return away(s.mount, err)
	}
	if err := now.whole(s.mount); err != nil {
		return err
	}
	if now.generation != s.begun.generation {
		return fmt.Errorf("%w: bricks of the volume %s went and came back, and lists since then may lack names: it is read anew",
			source.ErrNotMaster, s.mount.Volume)
	}
	return nil
}

// stamp is what may be stamped of a directory now: never more than what has passed for a window. Until the window has passed since the last
// change the directory differs from its stamp, and is compared again. After that its xtime is the stamp, and what a brick
// marks from then on is later, however late its clock is.
func (s *Source) stamp(t xtime.Time) xtime.Time {
	return min(t, xtime.FromTime(time.Now().Add(-s.window)))
}

// Head implements source.Source. The root's xtime is stamped like any other directory's.
func (s *Source) Head() (xtime.Time, xtime.GFID, error) {
	t, g, err := s.Source.Head()
	return s.stamp(t), g, err
}

// Open implements source.Source.
func (s *Source) Open(path string, gfid xtime.GFID) (*source.Directory, error) {
	return s.stamped(s.Source.Open(path, gfid))
}

// Describe implements source.Source.
func (s *Source) Describe(d *beneath.Dir) (*source.Directory, error) {
	return s.stamped(s.Source.Describe(d))
}

func (s *Source) stamped(d *source.Directory, err error) (*source.Directory, error) {
	if err != nil {
		return nil, err
	}
	d.Xtime = s.stamp(d.Xtime)
	return d, nil
}

// Entry implements source.Source.
func (s *Source) Entry(path string, d *beneath.Dir, name string) (plan.Entry, error) {
	return s.entry(s.Source.Entry(path, d, name))
}

func (s *Source) entry(e plan.Entry, err error) (plan.Entry, error) {
	if err == nil && e.Kind == slave.Dir {
		e.Record.Xtime = s.stamp(e.Record.Xtime)
	}
	return e, err
}

// Reader implements source.Source.
func (s *Source) Reader(path string, d *beneath.Dir, unmarked bool) source.Reader {
	return reader{s.Source.Reader(path, d, unmarked), s}
}

// reader is a source.Reader.
type reader struct {
	source.Reader
	s *Source
}

// Entry implements source.Reader.
func (r reader) Entry(name string) (plan.Entry, error) { return r.s.entry(r.Reader.Entry(name)) }

// Version implements source.Source: GFID and xtime. Times and size of a file may stand still while it changes, if the clock of its writer is late.
func (s *Source) Version(listed *plan.Entry) slave.Version {
	return versionOf(listed.Record.GFID, listed.Record.Xtime)
}

func versionOf(g xtime.GFID, t xtime.Time) slave.Version {
	b := t.Bytes()
	sum := sha256.Sum256(append(g[:], b[:]...))
	return slave.Version(sum[:16])
}
