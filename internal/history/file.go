package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The layout. A record never straddles two sectors, so that few writes are torn at all.
const (
	magic      = "georep history 1\n"
	headerSize = recordSize
	recordSize = 64
	perSeries  = 12 // count, average and greatest, 4 bytes each
)

// Size is what the file of a session takes, for good.
var Size = size()

// size adds up header and rings.
func size() int64 {
	n := int64(headerSize)
	for _, r := range rings {
		n += r.slots * recordSize
	}
	return n
}

// ErrBusy: another process writes this history.
var ErrBusy = errors.New("another process writes this history")

// record is a slot's.
type record struct {
	slot   int64 // 0: there is none
	series [seriesCount]struct {
		count    uint32
		avg, max float32
	}
}

var table = crc32.MakeTable(crc32.Castagnoli)

// encode gives the record as it lies in the file, little-endian, the checksum in its last four
// bytes.
func (r *record) encode() (b [recordSize]byte) {
	binary.LittleEndian.PutUint64(b[:], uint64(r.slot))
	for i, s := range r.series {
		at := b[8+i*perSeries:]
		binary.LittleEndian.PutUint32(at, s.count)
		binary.LittleEndian.PutUint32(at[4:], math.Float32bits(s.avg))
		binary.LittleEndian.PutUint32(at[8:], math.Float32bits(s.max))
	}
	binary.LittleEndian.PutUint32(b[recordSize-4:], crc32.Checksum(b[:recordSize-4], table))
	return b
}

// decode gives the empty record for what is none.
func decode(b []byte) (r record) {
	if crc32.Checksum(b[:recordSize-4], table) != binary.LittleEndian.Uint32(b[recordSize-4:]) {
		return record{}
	}
	r.slot = int64(binary.LittleEndian.Uint64(b))
	for i := range r.series {
		at := b[8+i*perSeries:]
		r.series[i].count = binary.LittleEndian.Uint32(at)
		r.series[i].avg = math.Float32frombits(binary.LittleEndian.Uint32(at[4:]))
		r.series[i].max = math.Float32frombits(binary.LittleEndian.Uint32(at[8:]))
	}
	return r
}

// add takes a sample in. What is not known, or infinite, is left out of count, average and
// greatest. The average is a running one, so nothing has to be summed up.
func (r *record) add(s Sample) {
	for i, v := range s {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		at := &r.series[i]
		if at.count == 0 || float32(v) > at.max {
			at.max = float32(v)
		}
		at.count++
		at.avg += (float32(v) - at.avg) / float32(at.count)
	}
}

// point is the record for a reader; a series without samples is NaN there.
func (r *record) point(step int64) Point {
	p := Point{Time: time.Unix(r.slot*step, 0), Avg: nothing(), Max: nothing()}
	for i, s := range r.series {
		if s.count > 0 {
			p.Avg[i], p.Max[i] = float64(s.avg), float64(s.max)
		}
	}
	return p
}

// offset is where a slot's record lies.
func (s Span) offset(slot int64) int64 {
	at := int64(headerSize)
	for before := range s {
		at += rings[before].slots * recordSize
	}
	return at + slot%rings[s].slots*recordSize
}

// Writer adds samples to one session's history. It is for one goroutine. It holds a lock on the
// file until Close, and nothing else; each Add is written at once.
type Writer struct {
	f    *os.File
	now  [spanCount]record // the slots that are being filled
	last int64             // the newest moment that was written, in seconds
}

// Open begins, or goes on with, the history at path. ErrBusy where another process has it open. A file that is none begins anew.
func Open(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	w := &Writer{f: f}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("open the history: %w", err)
	}
	if err := w.begin(); err != nil {
		f.Close()
		return nil, fmt.Errorf("open the history: %w", err)
	}
	return w, nil
}

// begin finds the newest record, or makes the file what it shall be.
func (w *Writer) begin() error {
	data, err := io.ReadAll(io.LimitReader(w.f, Size))
	if err != nil {
		return err
	}
	if len(data) < headerSize || string(data[:len(magic)]) != magic {
		if err := w.f.Truncate(0); err != nil {
			return err
		}
		var header [headerSize]byte
		copy(header[:], magic)
		if _, err := w.f.WriteAt(header[:], 0); err != nil {
			return err
		}
		data = header[:]
	}
	if err := w.f.Truncate(Size); err != nil { // all of it, so that it never grows; holes take no room
		return err
	}
	for s := range spanCount {
		for _, r := range recordsOf(data, s) {
			if at := r.slot * rings[s].step; r.slot > 0 && at > w.last {
				w.last = at
			}
		}
	}
	return nil
}

// Add takes a sample in.
func (w *Writer) Add(now time.Time, sample Sample) error {
	sec := now.Unix()
	if sec <= 0 {
		return nil // a clock that was never set
	}
	if sec < w.last {
		if err := w.takeBack(sec); err != nil {
			return err
		}
	}
	w.last = sec
	for s := range spanCount {
		slot := sec / rings[s].step
		r := &w.now[s]
		if r.slot != slot {
			found, err := w.read(s, slot)
			if err != nil {
				return err
			}
			*r = found
		}
		r.add(sample)
		b := r.encode()
		if _, err := w.f.WriteAt(b[:], s.offset(slot)); err != nil {
			return fmt.Errorf("write the history: %w", err)
		}
	}
	return nil
}

// read gives what there is of a slot.
func (w *Writer) read(s Span, slot int64) (record, error) {
	var b [recordSize]byte
	n, err := w.f.ReadAt(b[:], s.offset(slot))
	if err != nil && !errors.Is(err, io.EOF) {
		return record{}, fmt.Errorf("read the history: %w", err)
	}
	if r := decode(b[:]); n == recordSize && r.slot == slot {
		return r, nil
	}
	return record{slot: slot}, nil
}

// takeBack removes what is of a time that has not come: the clock was set back. It reads the whole
// file, which happens once for each step back.
func (w *Writer) takeBack(sec int64) error {
	data := make([]byte, Size)
	if n, err := w.f.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the history: %w", err)
	} else {
		data = data[:n]
	}
	var none [recordSize]byte
	for s := range spanCount {
		w.now[s] = record{}
		for _, r := range recordsOf(data, s) {
			if r.slot <= sec/rings[s].step {
				continue
			}
			if _, err := w.f.WriteAt(none[:], s.offset(r.slot)); err != nil {
				return fmt.Errorf("write the history: %w", err)
			}
		}
	}
	return nil
}

// Close ends the writing.
func (w *Writer) Close() error { return w.f.Close() }

// recordsOf gives the records of a span that are whole, in no order.
func recordsOf(data []byte, s Span) (out []record) {
	begin := s.offset(0)
	for i := range rings[s].slots {
		at := begin + i*recordSize
		if at+recordSize > int64(len(data)) {
			return out
		}
		if r := decode(data[at : at+recordSize]); r.slot > 0 {
			out = append(out, r)
		}
	}
	return out
}

// Read gives the slots of a span up to now, oldest first, one for each step whether or not
// something is known of it. A history that is not there is empty. It takes no lock: a record that
// is being written has a wrong checksum and counts as none. It may run beside a writer.
func Read(path string, now time.Time, s Span) ([]Point, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return points(nil, now, s), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	defer f.Close()
	data := make([]byte, Size)
	n, err := io.ReadFull(f, data)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	if data = data[:n]; n < headerSize || string(data[:len(magic)]) != magic {
		data = nil
	}
	return points(recordsOf(data, s), now, s), nil
}

// points puts records in order and fills the gaps between them.
func points(records []record, now time.Time, s Span) []Point {
	r := rings[s]
	newest := now.Unix() / r.step
	first := newest - r.slots + 1
	out := make([]Point, r.slots)
	for i := range out {
		out[i] = (&record{slot: first + int64(i)}).point(r.step)
	}
	for i := range records {
		if at := records[i].slot - first; at >= 0 && at < r.slots {
			out[at] = records[i].point(r.step)
		}
	}
	return out
}
