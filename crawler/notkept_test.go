package crawler

import (
	"errors"
	"testing"

	"georep/slave"
)

func TestLossesAreNamed(t *testing.T) {
	c := &Counters{}
	end := func(path string, lost slave.Lost) {
		c.end(&slave.Op{Kind: slave.OpPut, Path: path}, slave.Result{Lost: lost, Err: errors.New("whatever")})
	}
	end("o", slave.LostOwner)
	for range maxLosses + 1 {
		end("a\nb", slave.LostXattr|slave.LostOwner)
	}
	end("later", slave.LostXattr)
	if got, want := c.NotKept(), `owners, some xattrs (first of "a\nb")`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if list := c.TakeLosses(); len(list) != maxLosses || list[0] != (Loss{"a\nb", slave.LostXattr}) || len(c.TakeLosses()) != 0 {
		t.Errorf("%d entries: %v", len(list), list)
	}
}
