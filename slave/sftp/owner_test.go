package sftp

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"georep/slave"
	"georep/slave/slavetest"
)

// claimer opens a directory as a slave by OpenSSH's server.
func claimer(t *testing.T, root string, c slave.Claim) (slave.Tree, error) {
	o := options(t, root, program, 2)
	o.Master, o.Session, o.Proof, o.Force = c.Master, c.Session, c.Proof, c.Force
	tree, err := open(t.Context(), o, leaseTimes{step: 50 * time.Millisecond, dead: time.Second, poll: 5 * time.Millisecond})
	if err != nil {
		return nil, err
	}
	return tree, nil
}

func TestOwners(t *testing.T) {
	indexGone := func(f *slavetest.Owned) { f.Remove(".georep/index") }
	indexOfAnother := func(f *slavetest.Owned) {
		other := f.Root + ".other"
		f.Must(os.Mkdir(other, 0o755))
		f.Fill(other, slave.Claim{Master: [16]byte{1}, Session: [16]byte{2}})
		f.Remove(".georep/index")
		f.Must(os.Rename(filepath.Join(other, ".georep/index"), filepath.Join(f.Root, ".georep/index")))
	}
	filled := slave.Claim{Proof: slave.Proof{Filled: true}}
	slavetest.RunOwners(t, claimer,
		slavetest.OwnerCase{Name: "index gone", Befall: indexGone, Claim: filled, Named: true, Same: true},
		slavetest.OwnerCase{Name: "index of another", Befall: indexOfAnother, Claim: filled, Named: true, Same: true})
}

func TestGone(t *testing.T) { slavetest.RunGone(t, claimer) }
