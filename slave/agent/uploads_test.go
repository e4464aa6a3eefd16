package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
)

func TestUploads(t *testing.T) {
	everyPipe(t, func(t *testing.T, s *session) {
		ctx := context.Background()
		state, err := s.Begin(ctx, &slave.Upload{Size: 9, Basis: "basis", GFID: [16]byte{1}, Version: [16]byte{2}})
		want := slave.UploadState{Have: []slave.Range{{Off: 0, End: 2}, {Off: 4, End: 6}}, BasisSize: 7, BlockSize: 2048}
		if err != nil || !reflect.DeepEqual(state, want) {
			t.Fatalf("%+v, %v", state, err)
		}
		state, err = s.Begin(ctx, &slave.Upload{Size: 1 << 20, Basis: "refuse"})
		if err != nil || !errors.Is(state.Err, unix.EDQUOT) {
			t.Fatalf("%v, %v", state.Err, err)
		}
		state, err = s.Begin(ctx, &slave.Upload{Size: 1 << 20})
		if err != nil || len(state.Have) != slave.MaxRanges {
			t.Fatalf("%d ranges, %v", len(state.Have), err)
		}
		var blocks []int64
		total := 0
		r, err := s.Sums(ctx, slave.SumsQuery{Key: [16]byte{7}, Which: 2}, func(first int64, b []byte) error {
			blocks, total = append(blocks, first), total+bytes.Count(b, []byte{9})
			return nil
		})
		if err != nil || !errors.Is(r.Err, slave.ErrConflict) || fmt.Sprint(blocks) != "[0 1 2 3 4]" ||
			total != 5*slave.MaxSums-10 {
			t.Fatalf("%v, %v: %v, %d bytes", r.Err, err, blocks, total)
		}
		enough := errors.New("enough")
		if r, err = s.Sums(ctx, slave.SumsQuery{}, func(int64, []byte) error { return enough }); err != nil || r.Err != enough {
			t.Fatalf("%v, %v", r.Err, err)
		}
		sent := slave.Segment{GFID: [16]byte{3}, Version: [16]byte{4}, Range: slave.Range{Off: 10, End: 1 << 40},
			Parts: []slave.Part{{Off: 10, Data: bytes.Repeat([]byte("x"), slave.MaxSegmentData)}, {Off: 1 << 39, Len: 1 << 30, From: 5}}}
		if r, err := s.Write(ctx, &sent); err != nil || r.Err != nil || !reflect.DeepEqual(s.tree.segments[0], sent) {
			t.Fatalf("%v, %v", r.Err, err)
		}
		for name, bad := range map[string]slave.Segment{
			"empty part":    {Parts: []slave.Part{{Off: 1}}},
			"below zero":    {Parts: []slave.Part{{Off: -1, Len: 1}}},
			"too much data": {Parts: []slave.Part{{Data: make([]byte, slave.MaxSegmentData)}, {Off: slave.MaxSegmentData, Data: []byte{1}}}},
			"backwards":     {Range: slave.Range{Off: 5, End: 4}},
			"too many":      {Parts: make([]slave.Part, slave.MaxSegmentParts+1)},
		} {
			if r, err := s.Write(ctx, &bad); err != nil || !errors.Is(r.Err, slave.ErrInvalid) {
				t.Errorf("%s: %v, %v", name, r.Err, err)
			}
		}
		op := putOp("uploaded", nil)
		op.Uploaded, op.Open, op.Version = true, nil, slave.Version{5}
		plain := putOp("plain", []byte("content"))
		mustApply(t, s, op, plain)
		if got := s.tree.ops[0]; !got.Uploaded || got.Version != op.Version {
			t.Fatalf("%+v", got)
		}
		if string(s.tree.files["plain"]) != "content" {
			t.Fatalf("%q", s.tree.files["plain"])
		}
	})
}
