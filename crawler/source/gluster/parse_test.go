package gluster

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
)

// TestParseMark: the mark is a volume's of GlusterFS 10.3.
func TestParseMark(t *testing.T) {
	good := []byte("\x01\x00[\xc1\x01\xa2?\x10@\xba\xaa\xb3\xcb\x8e,\x05\xfeB\x00k\x0e\xdf\xb0\x00\x03\x13\xa6")
	id, at, err := parseMark(good)
	if err != nil || id.String() != "5bc101a2-3f10-40ba-aab3-cb8e2c05fe42" || at != xtime.Time(0x6b0edfb0<<32|0x313a6) {
		t.Errorf("%v, %v, %v", id, at, err)
	}
	failed := append([]byte(nil), good...)
	failed[18] = byte(unix.EIO)
	if _, _, err := parseMark(failed); !errors.Is(err, unix.EIO) {
		t.Errorf("of a brick that could not tell: %v", err)
	}
	later := append([]byte{2}, good[1:]...)
	for _, bad := range [][]byte{nil, good[:len(good)-1], append(good, 0), later} {
		if _, _, err := parseMark(bad); err == nil {
			t.Errorf("%x is taken", bad)
		}
	}
}

func TestParseSubvolumes(t *testing.T) {
	const one, two = "subvolumes[0] = cluster/replicate.v-replicate-0\nsubvolume_status[0] = 1\n", "subvolumes[1] = cluster/replicate.v-replicate-1\n"
	const again = "gen = 7\nsubvolumes[0] = v-replicate-0\nsubvolumes[1] = v-replicate-1\n"
	for _, c := range []struct {
		name, text string
		want       subvolumes
		bad        bool
	}{
		{"all answer", one + two + "subvolume_status[1] = 1\n" + again, subvolumes{generation: 7}, false},
		{"one does not", one + two + "subvolume_status[1] = 0\n" + again, subvolumes{7, "v-replicate-1"}, false},
		{"of one nothing is said", one + two + again, subvolumes{}, true},
		{"nothing is said", "", subvolumes{}, true},
		{"no count of changes", one + "gen = x\n", subvolumes{}, true},
		{"the count is missing", one, subvolumes{}, true},
	} {
		got, err := parseSubvolumes(c.text)
		if (err != nil) != c.bad || !c.bad && got != c.want {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}
