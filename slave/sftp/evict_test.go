package sftp

import (
	"testing"

	"georep/integration/harness/fstest"
	"georep/slave"
	"georep/slave/slavetest"
)

func TestFull(t *testing.T) {
	ageless := func(t *testing.T, root string, c slave.Claim) (slave.Tree, error) {
		tree, err := claimer(t, root, c)
		if err == nil {
			tree.(*Tree).cleaner.roomMaker.age = 0
		}
		return tree, err
	}
	slavetest.RunFull(t, ageless, fstest.Mount(t, fstest.Tmpfs, fstest.Options{Size: slavetest.FullSize}))
}
