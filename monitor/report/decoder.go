package report

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds a line. Writer keeps below it by listing fewer failures.
const maxLine = 1 << 20

// ErrMalformed: the line is too long or not what this package writes. The next call goes on with the next line.
var ErrMalformed = errors.New("malformed line")

// lines reads bounded lines. What is longer is skipped and reported, so that one bad line does not end a session.
type lines struct {
	r *bufio.Reader
}

func newLines(r io.Reader) lines { return lines{r: bufio.NewReaderSize(r, 64<<10)} }

// next returns a line. The last line counts even without a newline. The line is good until the next call: one that fits
// into the reader's buffer, as nearly all do, is not copied.
func (l lines) next() ([]byte, error) {
	var line []byte
	for size := 0; ; {
		part, err := l.r.ReadSlice('\n')
		size += len(part)
		if err == nil && size == len(part) {
			return part, nil
		}
		if size <= maxLine {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && size == 0:
			return nil, err
		case size > maxLine:
			return nil, fmt.Errorf("%w: %d bytes", ErrMalformed, size)
		}
		return line, nil
	}
}

// decode marks the decoder's errors as the line's fault.
func decode(line []byte, into any) error {
	if err := json.Unmarshal(line, into); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// Decoder reads reports. For one goroutine.
type Decoder struct {
	lines lines
}

// NewDecoder reads from r, which stays the caller's.
func NewDecoder(r io.Reader) *Decoder { return &Decoder{lines: newLines(r)} }

// Next returns the next report of a known kind. It returns io.EOF at the end, an error that is ErrMalformed for a bad
// line, after which the caller may go on, and any other error of the reader as it is.
func (d *Decoder) Next() (Report, error) {
	line, err := d.lines.next()
	if err != nil {
		return Report{}, err
	}
	var r Report
	if err := decode(line, &r); err != nil {
		return Report{}, err
	}
	return r, r.check()
}

// check makes a report safe to use without looking for nil.
func (r *Report) check() error {
	switch r.Kind {
	case Ready, Alive:
		return nil
	case KindProgress:
		if r.Progress == nil {
			return fmt.Errorf("%w: progress without its numbers", ErrMalformed)
		}
		r.Progress.Unmarked = r.Progress.Unmarked[:min(len(r.Progress.Unmarked), maxFailures)]
		r.Progress.Waiting = r.Progress.Waiting[:min(len(r.Progress.Waiting), maxFailures)]
		r.Progress.Failures = r.Progress.Failures[:min(len(r.Progress.Failures), maxFailures)]
		return nil
	case KindFaulty:
		if r.Fault == nil {
			return fmt.Errorf("%w: faulty without a reason", ErrMalformed)
		}
		return nil
	}
	if r.Kind == KindChanged && r.Changed != nil {
		return nil
	}
	return fmt.Errorf("%w: kind %q", ErrMalformed, r.Kind)
}

// ReadCommands calls handle for each command until the input ends, which gives nil, or cannot be read. It blocks;
// closing the input ends it. Malformed lines are ignored.
func ReadCommands(r io.Reader, handle func(Command)) error {
	l := newLines(r)
	for {
		line, err := l.next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, ErrMalformed):
			continue
		case err != nil:
			return fmt.Errorf("read commands: %w", err)
		}
		var c Command
		if decode(line, &c) == nil {
			handle(c)
		}
	}
}

// WriteCommand writes one command.
func WriteCommand(w io.Writer, c Command) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode command: %w", err)
	}
	if _, err := w.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write command %s: %w", c.Verb, err)
	}
	return nil
}
