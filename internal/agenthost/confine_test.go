package agenthost

import (
	"slices"
	"testing"

	"kernel.org/pub/linux/libs/security/libcap/cap"

	"georep/slave/policy"
)

// What a policy does without root cannot give any more, whatever a master makes the agent do.
func TestCapabilitiesOfAPolicy(t *testing.T) {
	owner := &policy.Owner{UID: 1, GID: 1}
	for _, c := range []struct {
		policy policy.Policy
		not    []cap.Value
	}{
		{policy.Policy{}, nil},
		{policy.Policy{NoSetuid: true}, []cap.Value{cap.FSETID, cap.SETFCAP}},
		{policy.Policy{NoDevices: true}, []cap.Value{cap.MKNOD}},
		{policy.Policy{Owner: owner}, nil},
		{policy.Policy{FakeOwner: true}, []cap.Value{cap.CHOWN, cap.FSETID, cap.SETFCAP, cap.MKNOD}},
		{policy.Policy{FakeOwner: true, Owner: owner}, []cap.Value{cap.FSETID, cap.SETFCAP, cap.MKNOD}},
	} {
		has := capabilities(&c.policy)
		for _, v := range []cap.Value{cap.CHOWN, cap.FSETID, cap.SETFCAP, cap.MKNOD} {
			if slices.Contains(has, v) == slices.Contains(c.not, v) {
				t.Errorf("under %+v: %v is wrong", c.policy, v)
			}
		}
	}
}
