package main

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	if err := s.Free(v.Path); err != nil {
		return err
	}
	err = e.agreed(c, fmt.Sprintf("georep's marks and .georep/ are removed from %s, with the deleted files that are still kept there. A session that "+
		"starts later compares everything. Go on?", status.Printable(v.Path)))
	if err != nil {
		return err
	}
	return e.purge(c.Context, s, &v)
}

// purge strips a tree that nobody uses, of the marks of the volume, if it is one, and of those of the master whose slave it is. Nobody begins
// to use it meanwhile.
func (e *env) purge(ctx context.Context, s *volume.Store, v *volume.Volume) error {
	path, err := filepath.EvalSymlinks(v.Path)
	if err != nil {
		return err
	}
	if err := s.Free(path); err != nil { // once more: it may have taken the operator an hour to agree
		return err
	}
	if v.Name != "" {
		users, err := unused(s, v.Name)
		if err != nil {
			return err
		}
		defer users.Close()
	}
	base, err := strip.Hold(path)
	if err != nil {
		return err
	}
	defer base.Close()
	uuids, err := uuidsOf(path, v.UUID)
	if err != nil {
		return err
	}
	sum, err := e.strip(ctx, path, uuids)
	if err != nil {
		return err
	}
	if err := base.Remove(); err != nil {
		return err
	}
	unseen := ""
	if os.Geteuid() != 0 {
		unseen = "; marks of the namespace trusted, if there are any, only root sees, and takes out"
	}
	_, err = fmt.Fprintf(e.out, "%s: the marks of %d entries are gone, and so is .georep/%s\n", status.Printable(path), sum.Entries, unseen)
	return err
}

// unused keeps the volume's marker from beginning.
func unused(s *volume.Store, name string) (*volume.Lock, error) {
	files, err := s.MakeRuntime(name)
	if err != nil {
		return nil, err
	}
	users, err := volume.TryLock(files.UsersLock, volume.Exclusive)
	if errors.Is(err, volume.ErrLocked) {
		err = fmt.Errorf("%w: a session or a sync of volume %s has just begun: wait for it to end and try again", volume.ErrVolumeBusy, name)
	}
	return users, err
}

// strip takes the marks out. .georep stays where some cannot be: it says whose they are.
func (e *env) strip(ctx context.Context, path string, uuids []xtime.UUID) (strip.Result, error) {
	root, err := beneath.OpenRoot(path, true)
	if err != nil {
		return strip.Result{}, beneath.RootError(path, err)
	}
	defer root.Close()
	sum, err := strip.Tree(ctx, root, uuids...)
	if err != nil {
		return sum, fmt.Errorf("take the marks out of %s: %w", path, err)
	}
	for _, line := range sum.Failed {
		fmt.Fprintln(e.err, "georep:", line)
	}
	if sum.Failing > 0 {
		return sum, fmt.Errorf("%d entries of %s keep their marks, which do no harm, and a .georep/ there stays: mend the causes above, "+
			"and run georep volume purge %s", sum.Failing, path, status.Printable(path))
	}
	return sum, nil
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

// purgeBoth takes georep's data out of both ends of a session that was deleted, where nothing else needs them: of its master, and of a slave
// on this host. How to do it on another host is said.
func (e *env) purgeBoth(c *cli.Context, s *volume.Store, session *volume.Session) error {
	v, err := s.Volume(session.Master)
	if err != nil {
		return err
	}
	owner, err := strip.Owner(v.Path)
	if err != nil {
		return err
	}
	if owner != nil {
		err = e.keeps(v.Path, "it is a slave as well; georep volume purge takes all out")
	} else {
		err = e.purgeUnused(c.Context, s, &v)
	}
	if err != nil {
		return err
	}
	to := session.Slave
	switch {
	case to.Local():
		return e.purgeSlave(c.Context, s, to.Path, v.UUID)
	case to.SFTP:
		_, err = fmt.Fprintf(e.out, "remove the directory .georep in %s on %s\n", status.Printable(to.Path), to.Host)
	default:
		_, err = fmt.Fprintf(e.out, "on %s: georep volume purge %s\n", to.Host, status.Printable(orPath(to)))
	}
	return err
}

// purgeSlave is purge for a slave, if it still is that of the master.
func (e *env) purgeSlave(ctx context.Context, s *volume.Store, path, master string) error {
	owner, err := strip.Owner(path)
	switch {
	case err != nil:
		return err
	case owner == nil:
		_, err = fmt.Fprintf(e.out, "%s: nothing of georep's is there\n", status.Printable(path))
		return err
	case owner.Master.String() != master:
		return e.keeps(path, "it is another master's slave by now")
	}
	return e.purgeUnused(ctx, s, &volume.Volume{Path: path})
}

// purgeUnused is purge that only says so where somebody needs what it would take.
func (e *env) purgeUnused(ctx context.Context, s *volume.Store, v *volume.Volume) error {
	err := e.purge(ctx, s, v)
	if errors.Is(err, volume.ErrVolumeBusy) {
		return e.keeps(v.Path, err.Error())
	}
	return err
}

func (e *env) keeps(path, why string) error {
	_, err := fmt.Fprintf(e.out, "georep's data in %s stays: %s\n", status.Printable(path), why)
	return err
}

func orPath(s volume.Slave) string {
	if s.Volume != "" {
		return s.Volume
	}
	return s.Path
}
