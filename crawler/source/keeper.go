package source

import (
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// keeper reads a master that was a slave under the policy fake-owner: what its xattrs keep goes before what its entries are. Only
// what belongs to the owner of the root is read so: what another user of the host has put there is that user's word, and makes
// nothing root's.
type keeper struct {
	uid uint32
	// was is the volume whose copy the master is. Its records are no part of the contents.
	was xtime.UUID
}

// newKeeper finds out whose copy it is, as far as that is on record there.
func newKeeper(root *beneath.Dir, st *beneath.Stat) *keeper {
	k := &keeper{uid: st.UID}
	if base, err := root.OpenPath(slave.Reserved); err == nil {
		defer base.Close()
		if text, err := readOwner(base); err == nil {
			if owner, err := slave.ParseOwner(text); err == nil {
				k.was = owner.Master
			}
		}
	}
	return k
}

// maxOwner bounds what is read of .georep/owner.
const maxOwner = 4 << 10

func readOwner(base *beneath.Dir) ([]byte, error) {
	f, err := base.OpenInode("owner")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text := make([]byte, maxOwner)
	n, err := f.ReadUpTo(text, 0)
	return text[:n], err
}

// look puts what is kept of an entry in the place of what it is.
func (k *keeper) look(d *beneath.Dir, name string, st *beneath.Stat) error {
	if k == nil || st.UID != k.uid {
		return nil
	}
	kept, err := slave.KeptAt(d, name, st)
	if kept != nil {
		kept.On(st)
	}
	return err
}

// master is the name that an xattr had where the entry comes from; ok is false for what was none there.
func (k *keeper) master(here string) (name string, ok bool) {
	if k == nil {
		return here, true
	}
	for _, ns := range []xtime.Namespace{xtime.Trusted, xtime.User} {
		names := xtime.NamesFor(ns, k.was)
		if !k.was.IsZero() && names.Own(here) {
			return "", false
		}
	}
	return slave.MasterName(here)
}
