package crawler_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"georep/marker/xtime"
	"georep/slave"
)

// conductor is a slave that lets the calls of a crawl through only when it is told to, so that whoever holds the baton decides
// in which order they take effect.
type conductor struct {
	slave.Tree
	fail func(op *slave.Op) error

	mu      sync.Mutex
	free    bool // nobody has to wait
	cut     bool // the session is over
	waiting []*call
	applied bool // something may have changed on the slave since that was asked for
}

// call is one that waits for its turn. lost is set where its answer does not come through.
type call struct {
	key  string
	turn chan struct{}
	lost bool
}

// await waits for the turn of a call. With an error it is not to be made.
func (c *conductor) await(key string) (*call, error) {
	c.mu.Lock()
	one := &call{key: key, turn: make(chan struct{})}
	wait := !c.free && !c.cut
	if wait {
		c.waiting = append(c.waiting, one)
	}
	c.mu.Unlock()
	if wait {
		<-one.turn
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return nil, errCut
	}
	return one, nil
}

// over is what a call that was made says of the session.
func (c *conductor) over(one *call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one.lost {
		c.cut = true
	}
	if c.cut {
		return errCut
	}
	return nil
}

// calls lists those that wait, in an order that does not depend on who came first.
func (c *conductor) calls() []*call {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.SortStableFunc(c.waiting, func(a, b *call) int { return strings.Compare(a.key, b.key) })
	return slices.Clone(c.waiting)
}

// let lets calls through.
func (c *conductor) let(calls ...*call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = slices.DeleteFunc(c.waiting, func(one *call) bool { return slices.Contains(calls, one) })
	for _, one := range calls {
		close(one.turn)
	}
}

// hangUp ends the session: whoever waits is told so.
func (c *conductor) hangUp() {
	c.mu.Lock()
	c.cut = true
	all := slices.Clone(c.waiting)
	c.mu.Unlock()
	c.let(all...)
}

// letAll lets everybody through from now on.
func (c *conductor) letAll() {
	c.mu.Lock()
	c.free = true
	all := slices.Clone(c.waiting)
	c.mu.Unlock()
	c.let(all...)
}

// changed tells whether the slave may have changed since the last time.
func (c *conductor) changed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.applied
	c.applied = false
	return was
}

func (c *conductor) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	key := make([]string, 0, len(b.Ops)+1)
	key = append(key, "apply")
	for i := range b.Ops {
		key = append(key, b.Ops[i].Kind.String()+" "+b.Ops[i].Path)
	}
	one, err := c.await(strings.Join(key, "; "))
	if err != nil {
		return nil, err
	}
	f := failing{Tree: c.Tree, fail: c.fail}
	results, err := f.Apply(ctx, b)
	c.mu.Lock()
	c.applied = true
	c.mu.Unlock()
	if lost := c.over(one); lost != nil {
		return nil, lost
	}
	return results, err
}

func (c *conductor) Survey(ctx context.Context, q []slave.Query) ([]slave.DirState, error) {
	one, err := c.await(fmt.Sprintf("survey %v", q))
	if err != nil {
		return nil, err
	}
	states, err := c.Tree.Survey(ctx, q)
	if lost := c.over(one); lost != nil {
		return nil, lost
	}
	return states, err
}

func (c *conductor) Find(ctx context.Context, g []xtime.GFID) ([]slave.Found, error) {
	one, err := c.await(fmt.Sprintf("find %v", g))
	if err != nil {
		return nil, err
	}
	found, err := c.Tree.Find(ctx, g)
	if lost := c.over(one); lost != nil {
		return nil, lost
	}
	return found, err
}

func (c *conductor) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	one, err := c.await(fmt.Sprintf("hash %q", paths))
	if err != nil {
		return nil, err
	}
	sums, err := c.Tree.Hash(ctx, paths)
	if lost := c.over(one); lost != nil {
		return nil, lost
	}
	return sums, err
}

func (c *conductor) Groups(ctx context.Context, max int) ([]slave.Group, error) {
	one, err := c.await("groups")
	if err != nil {
		return nil, err
	}
	groups, err := c.Tree.Groups(ctx, max)
	if lost := c.over(one); lost != nil {
		return nil, lost
	}
	return groups, err
}
