package apply

import (
	"georep/marker/xtime"
	"georep/slave"
)

// MaxNames bounds the names that a slave remembers of one inode. Those beyond are searched for when they are needed.
const MaxNames = 1024

// Names is what a slave knows of how many names an inode has on the master.
type Names struct {
	Ino   uint64     // on the master
	Want  uint32     // names it has there
	At    xtime.Time // of the inode when Want was read
	Final bool       // a search of the whole master found Want
}

// WorthKeeping tells whether a slave has to remember so many names of the inode. Of one name, which is all that there should be, the
// tree itself tells as much.
func (n *Names) WorthKeeping(names int) bool {
	return names > 1 || names == 1 && (n.Want > 1 || n.Final)
}

// Learn takes over what an operation says of the number of names, unless something later is known: operations that read
// the master at different moments may arrive in any order. Of what was read at the same xtime a search is believed, and
// else the larger number: too many only cost a search.
func (n *Names) Learn(op *slave.Op) {
	want, at := max(op.Links, 1), op.Record.Xtime
	if at < n.At || at == n.At && !op.LinksFinal && (n.Final || want < n.Want) {
		return
	}
	*n = Names{Ino: op.Ino, Want: want, At: at, Final: op.LinksFinal}
}
