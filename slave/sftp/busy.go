package sftp

import (
	"sync"

	"georep/marker/xtime"
	"georep/slave/sftp/index"
)

// keyed are locks by a key, as many as are held at the moment. The zero value is ready. They are
// not re-entrant.
type keyed[K comparable] struct {
	mu   sync.Mutex
	held map[K]*keyedLock
}

// keyedLock is the lock of one key. users counts who has it or waits for it, under keyed.mu; the
// last one removes it, so that keys that nobody uses take no memory.
type keyedLock struct {
	sync.Mutex
	users int
}

// lock waits for the key's lock and takes it. unlock is called once, by anybody.
func (l *keyed[K]) lock(key K) (unlock func()) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[K]*keyedLock{}
	}
	one := l.held[key]
	if one == nil {
		one = &keyedLock{}
		l.held[key] = one
	}
	one.users++
	l.mu.Unlock()
	one.Lock()
	return func() {
		one.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(l.held, key)
		}
	}
}

// waitedFor tells whether anybody waits for any of them.
func (l *keyed[K]) waitedFor() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range l.held {
		if one.users > 1 {
			return true
		}
	}
	return false
}

// busy has operations wait that would disturb each other, of whatever batch: within a batch order
// sees to that already, but several batches are carried out at the same time. lockInode comes
// before lockName.
type busy struct {
	inodes keyed[xtime.GFID]
	names  keyed[name]
}

// lockInode lets one operation at a time work on the names of an inode, of whatever batch: what replaces all names of one must
// not bring back a name that is parked meanwhile. An entry without a GFID has nothing to wait for.
func (b *busy) lockInode(g xtime.GFID) (unlock func()) {
	if g.IsZero() {
		return func() {}
	}
	return b.inodes.lock(g)
}

// name is one in a directory, wherever that moves.
type name struct {
	dir  index.ID
	name string
}

// lockName lets one operation at a time work on what stands under a name. Else what brings a change to all names of an inode
// would bring it to a name that is another inode's by then, which holds lockInode of that one. It comes after lockInode, and
// nobody waits for a second name while it has one.
func (b *busy) lockName(p place) (unlock func()) { return b.names.lock(name{p.dir, p.name}) }
