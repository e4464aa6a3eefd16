package xtime

import (
	"fmt"
	"strings"
)

// Namespace is the xattr namespace that carries a volume's marks on one file system: Trusted where root may use it,
// User elsewhere. Which of them a file system takes is probed by whoever needs to know, never assumed.
type Namespace string

// The two namespaces. User xattrs exist on regular files and directories only.
const (
	Trusted Namespace = "trusted"
	User    Namespace = "user"
)

// ParseNamespace accepts the two names.
func ParseNamespace(s string) (Namespace, error) {
	switch ns := Namespace(s); ns {
	case Trusted, User:
		return ns, nil
	}
	return "", fmt.Errorf("xattr namespace %q: want %q or %q", s, Trusted, User)
}

// Names are the full xattr names of one volume in one namespace. They are built once and shared; read only.
type Names struct {
	Namespace Namespace
	Xtime     string
	GFID      string

	volume string // its uuid
}

// NamesFor builds the names of volume u in namespace ns.
func NamesFor(ns Namespace, u UUID) Names {
	prefix := string(ns) + ownInfix + u.String()
	return Names{Namespace: ns, Xtime: prefix + xtimeSuffix, GFID: prefix + gfidSuffix, volume: u.String()}
}

// Own tells whether an xattr is bookkeeping, and so neither replicated nor removed: of this volume in either namespace, or of any
// volume in the trusted one, which only root can write. A user's own xattr of such a name is the user's.
func (n *Names) Own(name string) bool {
	volume, ok := volumeOf(name)
	return ok && (volume == n.volume || strings.HasPrefix(name, string(Trusted)+"."))
}

// Foreign gives the uuid of another volume whose xtime in the user namespace the name is, "" where it is none.
func (n *Names) Foreign(name string) string {
	volume, ok := volumeOf(name)
	if !ok || volume == n.volume || !strings.HasPrefix(name, string(User)+".") || !strings.HasSuffix(name, xtimeSuffix) {
		return ""
	}
	return volume
}

const (
	ownInfix    = ".glusterfs."
	xtimeSuffix = ".xtime"
	gfidSuffix  = ".gfid"
)

// Reserved tells whether an xattr is bookkeeping of some volume that only root can have written. Nobody may ask a slave to set it.
func Reserved(name string) bool {
	_, ok := volumeOf(name)
	return ok && strings.HasPrefix(name, string(Trusted)+".")
}

// volumeOf gives the uuid in a name that has the form of a volume's xtime or GFID, in either namespace.
func volumeOf(name string) (volume string, ok bool) {
	rest, ok := strings.CutPrefix(name, string(Trusted)+ownInfix)
	if !ok {
		rest, ok = strings.CutPrefix(name, string(User)+ownInfix)
	}
	if !ok || len(rest) <= 36 {
		return "", false
	}
	if rest[36:] != xtimeSuffix && rest[36:] != gfidSuffix {
		return "", false
	}
	_, err := parse16(rest[:36])
	return rest[:36], err == nil
}
