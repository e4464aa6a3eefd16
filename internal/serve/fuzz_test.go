package serve

import (
	"testing"

	"golang.org/x/crypto/ssh"
)

// FuzzSubsystem: only a request that is whole, and names the one subsystem, gets an agent.
func FuzzSubsystem(f *testing.F) {
	want := string(ssh.Marshal(struct{ Name string }{Subsystem}))
	for _, payload := range []string{"", want, want + "x", "\x00\x00\x00\x04sftp", "\xff\xff\xff\xffgeorep", want[:6]} {
		f.Add([]byte(payload))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if (subsystem(payload) == Subsystem) != (string(payload) == want) {
			t.Fatalf("%q: %q", payload, subsystem(payload))
		}
	})
}
