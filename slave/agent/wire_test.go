package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// encodes and decodes a value and tells how many bytes that took.
func roundTrip[T any](t *testing.T, want T, put func([]byte, T) []byte, get func(*decoder) T) {
	t.Helper()
	b := put(nil, want)
	d := &decoder{b: bytes.Clone(b)}
	if got := get(d); d.end() != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%T: got %+v, %v, want %+v", want, got, d.err, want)
	}
	for n := range b {
		d := &decoder{b: b[:n]}
		if get(d); d.end() == nil {
			t.Errorf("%T: cut after %d of %d bytes it still decodes", want, n, len(b))
		}
	}
	d = &decoder{b: append(b, 0)}
	if get(d); d.end() == nil {
		t.Errorf("%T: decodes with a byte too many", want)
	}
}

func ref[T any](put func([]byte, *T) []byte) func([]byte, T) []byte {
	return func(b []byte, v T) []byte { return put(b, &v) }
}

var fullRecord = slave.Record{GFID: xtime.GFID{1, 2}, Xtime: 1<<63 | 5}

func TestEveryMessageRoundTrips(t *testing.T) {
	full := slave.Op{Kind: slave.OpFinish, Entry: slave.Socket, Path: "a\n\xff/b", Record: fullRecord,
		In: xtime.GFID{8}, Expect: xtime.GFID{7}, Links: math.MaxUint32, Ino: math.MaxUint64, From: "f", Stamp: true, LinksFinal: true, Pass: 9, Copy: math.MaxUint64,
		Meta: slave.Meta{Mode: 07777, UID: math.MaxUint32, GID: 1, Size: math.MaxInt64, Rdev: math.MaxUint64,
			Mtime: beneath.Time{Sec: math.MinInt64, Nsec: maxNsec}, Target: strings.Repeat("t", maxTarget),
			Xattrs: []slave.Xattr{{Name: "user.x", Value: []byte{0, 1}}, {Name: "user.empty", Value: []byte{}}}}}
	for _, op := range []slave.Op{{Kind: slave.OpMkdir}, full} {
		roundTrip(t, op, ref(appendOp), (*decoder).op)
	}
	for _, r := range []slave.Result{{}, {Lost: 15, Torn: true}, {Parked: true,
		Err: &slave.PathError{Op: "put", Path: "p\x00", Err: unix.ENOSPC}}} {
		roundTrip(t, r, ref(appendResult), (*decoder).result)
	}
	roundTrip(t, slave.End{Size: math.MaxInt64, Torn: true}, appendEnd, (*decoder).contentEnd)
	roundTrip(t, slave.Query{Path: "p", Part: 3, Parts: math.MaxUint32}, appendQuery, (*decoder).query)
	item := func(d *decoder) slave.DirState { d.u8(); return d.dirState() }
	for _, s := range []slave.DirState{{}, {Record: fullRecord, Total: math.MaxInt64, Truncated: true},
		{Err: &slave.PathError{Op: "open", Path: "p", Err: unix.ENOTDIR}}} {
		roundTrip(t, s, ref(appendDirState), item)
	}
	entry := func(d *decoder) slave.EntryState { d.u8(); return d.entry() }
	for _, e := range []slave.EntryState{{Name: "n"}, {Name: strings.Repeat("\xfe", 255), Kind: slave.Symlink,
		Record: fullRecord, Mode: 07777, UID: 1, GID: 2, Nlink: 3, Size: 4, Mtime: beneath.Time{Sec: -1, Nsec: 5}, Rdev: 6,
		Target: "../x"}} {
		roundTrip(t, e, ref(appendEntry), entry)
	}
	roundTrip(t, slave.Found{Parked: true, Linked: true, Path: "p", Record: fullRecord}, appendFound, (*decoder).found)
	roundTrip(t, slave.HashResult{Sum: [32]byte{31: 1}, Size: 3}, appendHash, (*decoder).hash)
	roundTrip(t, slave.HashResult{Err: &slave.PathError{Op: "hash", Err: slave.ErrInvalid}}, appendHash, (*decoder).hash)
	roundTrip(t, slave.Group{GFID: xtime.GFID{3}, Ino: math.MaxUint64, MissingNames: true, Names: []string{"a", "b/\n"},
		Record: slave.Record{GFID: xtime.GFID{3}, Xtime: 7}}, appendGroup, (*decoder).group)
	roundTrip(t, testHello(), ref(appendHello), (*decoder).hello)
	further := testHello()
	further.Stream, further.Token = MaxStreams-1, Token{15: 9}
	roundTrip(t, further, ref(appendHello), (*decoder).hello)
	roundTrip(t, testInfo(), ref(appendInfo), (*decoder).info)
	asked, limited := testHello(), testInfo()
	asked.Limits = true
	roundTrip(t, asked, ref(appendHello), (*decoder).hello)
	asked.Policy = true
	roundTrip(t, asked, ref(appendHello), (*decoder).hello)
	limited.Limits = slave.Limits{UIDs: []slave.IDRange{{First: 0, Count: 1}, {First: 1, Count: math.MaxUint32}}, GIDs: []slave.IDRange{{First: 7, Count: 8}},
		Times: slave.TimeLimits{Min: math.MinInt64, Max: math.MaxInt64, Step: slave.MaxStep}}
	roundTrip(t, limited, ref(appendInfo), (*decoder).info)
	limited.Limits = slave.Limits{Times: slave.TimeLimits{Min: -1, Max: 1, Step: 1}}
	roundTrip(t, limited, ref(appendInfo), (*decoder).info)
	limited.Limits.Policy = slave.PolicyLimits{NoSetuid: true, KeepRoot: true, Owned: true, Fake: true, UID: math.MaxUint32, GID: 7}
	roundTrip(t, limited, ref(appendInfo), (*decoder).info)
	limited.Limits = slave.Limits{Policy: slave.PolicyLimits{NoDevices: true}}
	roundTrip(t, limited, ref(appendInfo), (*decoder).info)
	roundTrip(t, welcome{info: testInfo(), token: Token{1, 2}}, ref(appendWelcome), (*decoder).welcome)
	roundTrip(t, welcome{info: testInfo(), noMore: slave.ErrBusy}, ref(appendWelcome), (*decoder).welcome)
}

func TestPiecesRoundTrip(t *testing.T) {
	want := slave.Piece{Off: math.MaxInt64 - 3, Data: []byte("abc")}
	d := &decoder{b: appendPiece(nil, want)}
	if got := d.piece(); d.end() != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, d.err)
	}
	for name, p := range map[string]slave.Piece{"empty": {}, "too long": {Data: make([]byte, maxData+1)},
		"before the beginning": {Off: -1, Data: []byte("x")}, "beyond the end": {Off: math.MaxInt64, Data: []byte("x")}} {
		d := &decoder{b: appendPiece(nil, p)}
		if d.piece(); d.end() == nil {
			t.Errorf("a piece that is %s passed", name)
		}
	}
	if checkOrder(slave.Piece{Off: 3, Data: []byte("x")}, 4) == nil {
		t.Error("overlapping pieces passed")
	}
}

func TestValidation(t *testing.T) {
	bad := map[string]slave.Op{
		"no kind": {}, "kind": {Kind: slave.OpFilter + 1}, "entry": {Kind: slave.OpPut, Entry: 13},
		"mode": {Kind: slave.OpPut, Meta: slave.Meta{Mode: 010000}}, "size": {Kind: slave.OpPut, Meta: slave.Meta{Size: -1}},
		"nsec":   {Kind: slave.OpPut, Meta: slave.Meta{Mtime: beneath.Time{Nsec: 1e9}}},
		"target": {Kind: slave.OpPut, Meta: slave.Meta{Target: strings.Repeat("t", maxTarget+1)}},
		"path":   {Kind: slave.OpPut, Path: strings.Repeat("p", maxPath+1)},
		"from":   {Kind: slave.OpPut, From: strings.Repeat("p", maxPath+1)},
		"xattrs": {Kind: slave.OpPut, Meta: slave.Meta{Xattrs: make([]slave.Xattr, maxXattrs+1)}},
		"value":  {Kind: slave.OpPut, Meta: slave.Meta{Xattrs: []slave.Xattr{{Name: "x", Value: make([]byte, maxValue+1)}}}},
	}
	for name, op := range bad {
		if err := checkOp(&op); !errors.Is(err, slave.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		d := &decoder{b: appendOp(nil, &op)}
		// The encoder bounds the time's nanoseconds, so only the others can arrive.
		if d.op(); name != "nsec" && !errors.Is(d.end(), errMalformed) {
			t.Errorf("%s: decoded, %v", name, d.err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "a\x00", strings.Repeat("n", 256)} {
		e := slave.EntryState{Name: name}
		d := &decoder{b: appendEntry(nil, &e)[1:]}
		if d.entry(); d.end() == nil || sendable(&e) {
			t.Errorf("an entry named %q passed", name)
		}
	}
}

func TestErrorsAreTheSameAtBothEnds(t *testing.T) {
	path := func(err error) error { return &slave.PathError{Op: "rename", Path: "a\nb", Err: err} }
	errs := []error{
		path(unix.ENOENT), path(unix.ENOSPC), path(fmt.Errorf("%w: %w", slave.ErrXattrRoom, unix.ENOSPC)), path(unix.EROFS), path(slave.ErrConflict), path(slave.ErrNeedContent),
		path(slave.ErrHeldBack), path(slave.ErrInvalid),
		path(sourceError(&fs.PathError{Op: "open", Path: "/x", Err: unix.EACCES})),
		path(fmt.Errorf("%w: found another: %w", slave.ErrConflict, unix.EEXIST)),
		path(errors.New("just text")), path(nil), path(context.Canceled), path(fs.ErrNotExist),
		fmt.Errorf("open /v: %w", slave.ErrForeign), unix.EIO, slave.ErrBusy, fmt.Errorf("x: %w", path(unix.EPERM)),
	}
	targets := append([]error{unix.ENOENT, unix.ENOSPC, unix.EROFS, unix.EACCES, unix.EEXIST, unix.EIO, unix.EPERM},
		sentinels[:]...)
	for _, want := range errs {
		d := &decoder{b: appendError(nil, want)}
		got := d.error()
		if d.end() != nil || got == nil {
			t.Fatalf("%v: decoded as %v, %v", want, got, d.err)
		}
		if wantText := strings.Replace(want.Error(), "<nil>", "unknown error", 1); got.Error() != wantText {
			t.Errorf("got %q, want %q", got, wantText)
		}
		for _, target := range targets {
			if errors.Is(got, target) != errors.Is(want, target) {
				t.Errorf("%v: errors.Is(%v) differs", want, target)
			}
		}
		if slave.Errno(got) != slave.Errno(want) || slave.Full(got) != slave.Full(want) {
			t.Errorf("%v: errno %v", want, slave.Errno(got))
		}
	}
}

func TestErrorTextIsMadePrintable(t *testing.T) {
	evil := &slave.PathError{Op: "put\x1b[2J", Path: "a\x1bb", Err: errors.New("x\r\n\xff\u202e\u0085é" + strings.Repeat("y", 2*maxText))}
	d := &decoder{b: appendError(nil, evil)}
	got := d.error()
	var pe *slave.PathError
	if d.end() != nil || !errors.As(got, &pe) || pe.Path != evil.Path {
		t.Fatalf("%v, %v", got, d.err)
	}
	if printable(got.Error()) != got.Error() || !strings.Contains(got.Error(), `x\r\n\xff\u202e\u0085é`) {
		t.Errorf("%.200q", got)
	}
	if len(got.Error()) > 2*maxText {
		t.Errorf("%d bytes of text", len(got.Error()))
	}
}

func TestMemoryFollowsWhatArrives(t *testing.T) {
	announced := binary.BigEndian.AppendUint32(nil, maxFrame)
	r := newReceiver(bytes.NewReader(append(announced, make([]byte, 1000)...)))
	if _, err := r.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if cap(r.buf) > 2*firstStep {
		t.Errorf("%d bytes allocated for 1000", cap(r.buf))
	}
	r = newReceiver(bytes.NewReader(binary.BigEndian.AppendUint32(nil, maxFrame+1)))
	if _, err := r.next(); !errors.Is(err, errMalformed) {
		t.Errorf("got %v", err)
	}
	// Lengths within a frame.
	d := &decoder{b: binary.AppendUvarint(nil, maxPath)}
	if s := d.str(maxPath); s != "" || d.err == nil {
		t.Error("a string longer than its frame passed")
	}
}

func TestErrnoZeroIsNoCause(t *testing.T) {
	d := &decoder{b: appendError(nil, errBoom)}
	if err := d.error(); errors.As(err, new(syscall.Errno)) || err.Error() != "boom" {
		t.Errorf("got %v", err)
	}
}

// A client gets told what it asks for: an older one would not know how to read the rest.
func TestLimitsAreToldWhenAsked(t *testing.T) {
	all := slave.Limits{Times: slave.TimeLimits{Min: -1, Max: 1, Step: 1}, Policy: slave.PolicyLimits{NoSetuid: true}}
	for _, c := range []struct {
		limits, policy bool
		want           slave.Limits
	}{
		{true, true, all}, {false, false, slave.Limits{}}, {true, false, slave.Limits{Times: all.Times}}, {false, true, slave.Limits{Policy: all.Policy}},
	} {
		if got := limitsFor(&Hello{Limits: c.limits, Policy: c.policy}, all); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v, %v: %+v", c.limits, c.policy, got)
		}
	}
}

// TestPromotionIsTold: what made a slave the writable side travels in the Welcome, cut to its bound, and printable.
func TestPromotionIsTold(t *testing.T) {
	for _, text := range []string{"", "promoted at 2026-12-01 15:06:06 UTC by root", "by \x1b[2J", strings.Repeat("x", 5000)} {
		said := welcome{info: slave.Info{Namespace: xtime.Trusted, Promoted: text}}
		d := decoder{b: appendWelcome(nil, &said)}
		got := d.welcome()
		if d.err != nil || len(d.b) != 0 {
			t.Fatalf("%.20q: %v, %d bytes are left", text, d.err, len(d.b))
		}
		want := printable(clip(text, maxPromoted))
		if got.info.Promoted != want || strings.Contains(want, "\x1b") {
			t.Errorf("%.40q became %.40q", text, got.info.Promoted)
		}
	}
}
