package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"georep/internal/beneath"
	"georep/internal/strip"
	"georep/marker/xtime"
	"georep/status"
	"georep/volume"
)

// purgeMetadata is the flag of delete that takes georep's own data out of the trees.
const purgeMetadata = "purge-metadata"

func (e *env) volumePurgeCommand() *cli.Command {
	return &cli.Command{Name: "purge", ArgsUsage: "NAME|PATH", Action: e.volumePurge, Flags: []cli.Flag{yesFlag()},
		Usage: "take georep's xattrs and .georep/ out of a master or slave on this host; the files stay"}
}

// volumePurge takes a volume of the registry, or the directory of a slave that is in none.
func (e *env) volumePurge(c *cli.Context) error {
	if err := wants(c, 1, 1); err != nil {
		return err
	}
	m, err := volume.ParseMaster(c.Args().First())
	if err != nil {
		return asUsage(err)
	}
	s, err := store(c)
	if err != nil {
		return err
	}
	v, err := s.Master(m)
	switch {
	case errors.Is(err, volume.ErrNoVolume) && m.Path != "":
		v = volume.Volume{Path: m.Path}
	case err != nil:
		return err
	}
	if v.Name != "" {
		if err := s.Unused(v.Name); err != nil {
			return err
		}
	}
	err = e.agreed(c, fmt.Sprintf("georep's marks and .georep/ of %s go, with what was deleted and is still kept there. A session that "+
		"comes later compares everything. Go on?", status.Printable(v.Path)))
	if err != nil {
		return err
	}
	return e.purge(c.Context, &v)
}

// purge strips a tree, of the marks of the volume, if it is one, and of those of the master whose slave it is.
func (e *env) purge(ctx context.Context, v *volume.Volume) error {
	path, err := filepath.EvalSymlinks(v.Path)
	if err != nil {
		return err
	}
	uuids, err := uuidsOf(path, v.UUID)
	if err != nil {
		return err
	}
	if err := strip.Base(path); err != nil {
		return err
	}
	root, err := beneath.OpenRoot(path, true)
	if err != nil {
		return beneath.RootError(path, err)
	}
	defer root.Close()
	sum := strip.Result{}
	for _, u := range uuids {
		r, err := strip.Tree(ctx, root, u)
		if err != nil {
			return fmt.Errorf("take the marks out of %s: %w", path, err)
		}
		sum.Entries, sum.Failed, sum.Failing = sum.Entries+r.Entries, r.Failed, r.Failing
	}
	for _, line := range sum.Failed {
		fmt.Fprintln(e.err, "georep:", line)
	}
	if sum.Failing > 0 {
		return fmt.Errorf("%d entries of %s keep their marks, which do no harm", sum.Failing, path)
	}
	_, err = fmt.Fprintf(e.out, "%s: the marks of %d entries are gone, and so is .georep/\n", status.Printable(path), sum.Entries)
	return err
}

// uuidsOf lists whose marks a tree may have: the volume's own, and those of the master whose slave it is. Marks of the trusted namespace
// go whosever they are.
func uuidsOf(path, own string) ([]xtime.UUID, error) {
	var texts []string
	if own != "" {
		texts = append(texts, own)
	}
	owner, err := strip.Owner(path)
	if err != nil {
		return nil, err
	}
	if owner != nil {
		texts = append(texts, owner.Master.String())
	}
	if len(texts) == 0 {
		return []xtime.UUID{{}}, nil
	}
	var out []xtime.UUID
	for _, text := range texts {
		u, err := xtime.ParseUUID(text)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

// purgeBoth takes georep's data out of both ends of a session that was deleted: of its master if no other session needs the marks, and of
// a slave on this host. How to do it on another host is said.
func (e *env) purgeBoth(c *cli.Context, s *volume.Store, session *volume.Session) error {
	v, err := s.Volume(session.Master)
	if err != nil {
		return err
	}
	if err := s.Unused(v.Name); err != nil {
		if _, e := fmt.Fprintf(e.out, "%s keeps its marks: %v\n", status.Printable(v.Path), err); e != nil {
			return e
		}
	} else if err := e.purge(c.Context, &v); err != nil {
		return err
	}
	to := session.Slave
	switch {
	case to.Local():
		return e.purge(c.Context, &volume.Volume{Path: to.Path})
	case to.SFTP:
		_, err = fmt.Fprintf(e.out, "remove the directory .georep in %s on %s\n", status.Printable(to.Path), to.Host)
	default:
		_, err = fmt.Fprintf(e.out, "on %s: georep volume purge %s\n", to.Host, status.Printable(orPath(to)))
	}
	return err
}

func orPath(s volume.Slave) string {
	if s.Volume != "" {
		return s.Volume
	}
	return s.Path
}
