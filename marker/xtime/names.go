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
}

// NamesFor builds the names of volume u in namespace ns.
func NamesFor(ns Namespace, u UUID) Names {
	prefix := string(ns) + ownInfix + u.String()
	return Names{Namespace: ns, Xtime: prefix + xtimeSuffix, GFID: prefix + gfidSuffix}
}

const (
	ownInfix    = ".glusterfs."
	xtimeSuffix = ".xtime"
	gfidSuffix  = ".gfid"
)

// Own tells whether an xattr is bookkeeping of this or any other volume (an xtime or a GFID in either namespace). Such
// xattrs are never replicated and never removed from a slave.
func Own(name string) bool {
	rest, ok := strings.CutPrefix(name, string(Trusted)+ownInfix)
	if !ok {
		rest, ok = strings.CutPrefix(name, string(User)+ownInfix)
	}
	if !ok || len(rest) <= 36 {
		return false
	}
	if rest[36:] != xtimeSuffix && rest[36:] != gfidSuffix {
		return false
	}
	_, err := parse16(rest[:36])
	return err == nil
}
