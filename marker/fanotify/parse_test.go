package fanotify

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

// record builds an information record with a handle and, unless it is "", a name.
func record(kind byte, handle, name string) []byte {
	b := make([]byte, infoSize)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(handle)))
	b = binary.NativeEndian.AppendUint32(b, 1)
	b = append(b, handle...)
	if name != "" {
		b = append(b, name...)
		b = append(b, 0)
	}
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	b[0] = kind
	binary.NativeEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func event(mask uint64, pid int32, records ...[]byte) []byte {
	b := make([]byte, metaSize)
	b[4] = unix.FANOTIFY_METADATA_VERSION
	binary.NativeEndian.PutUint16(b[6:], metaSize)
	binary.NativeEndian.PutUint64(b[8:], mask)
	binary.NativeEndian.PutUint32(b[20:], uint32(pid))
	for _, r := range records {
		b = append(b, r...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	return b
}

func sample() []byte {
	b := event(unix.FAN_CREATE|unix.FAN_ONDIR, 7,
		record(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, "dirdir", "na\nme"), record(unix.FAN_EVENT_INFO_TYPE_FID, "self", ""))
	b = append(b, event(unix.FAN_RENAME, 8, record(unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, "from", "a"),
		record(unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, "to", "b"), record(99, "later", "kernel"))...)
	return append(b, event(unix.FAN_Q_OVERFLOW, 0)...)
}

func TestParse(t *testing.T) {
	var got []Event
	n, err := Parse(sample(), func(e *Event) { got = append(got, *e) })
	if n != 3 || err != nil || len(got) != 3 {
		t.Fatalf("%d events, %v", n, err)
	}
	key := func(s string) beneath.HandleKey { return beneath.MakeHandleKey(1, []byte(s)) }
	want := []Event{
		{Mask: unix.FAN_CREATE | unix.FAN_ONDIR, PID: 7, At: Place{key("dirdir"), "na\nme"}, Target: key("self")},
		{Mask: unix.FAN_RENAME, PID: 8, At: Place{key("to"), "b"}, From: Place{key("from"), "a"}},
		{Mask: unix.FAN_Q_OVERFLOW},
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("event %d is %+v, want %+v", i, got[i], want[i])
		}
	}
	if !got[0].IsDir() || got[1].IsDir() || !got[2].Overflow() || got[0].Overflow() {
		t.Error("wrong kinds of events")
	}
}

func TestParseCutShort(t *testing.T) {
	whole := event(unix.FAN_CREATE, 7, record(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, "dirdir", "name"))
	for size := 1; size < len(whole); size++ {
		if _, err := Parse(whole[:size], func(*Event) {}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d of %d bytes: %v", size, len(whole), err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample())
	f.Add(event(0, 0, record(unix.FAN_EVENT_INFO_TYPE_FID, "", "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		calls := 0
		n, err := Parse(b, func(e *Event) {
			calls++
			if len(e.At.Name)+len(e.From.Name)+len(e.Target) > len(b) {
				t.Fatalf("%+v has more than the %d bytes read", e, len(b))
			}
		})
		if n != calls || err == nil && n == 0 && len(b) > 0 {
			t.Fatalf("%d events counted, %d given, %v", n, calls, err)
		}
	})
}
