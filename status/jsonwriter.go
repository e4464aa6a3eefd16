package status

import (
	"bytes"
	"fmt"
	"io"
)

// JSONWriter passes JSON text on with the control characters escaped that JSON allows as they are: DEL, and U+0080 to
// U+009F, which some terminals obey. Each Write must be given whole characters. It is as safe for use by several
// goroutines as W.
type JSONWriter struct{ W io.Writer }

// Write returns len(b) where all of it was passed on.
func (j JSONWriter) Write(b []byte) (int, error) {
	safe := b
	for i := 0; i < len(safe); i++ {
		switch {
		case safe[i] == 0x7f:
			safe = escape(safe, i, 1, 0x7f)
		case safe[i] == 0xc2 && i+1 < len(safe) && safe[i+1] >= 0x80 && safe[i+1] <= 0x9f:
			safe = escape(safe, i, 2, safe[i+1])
		}
	}
	if _, err := j.W.Write(safe); err != nil {
		return 0, err
	}
	return len(b), nil
}

// escape gives b with the n bytes at i replaced by a JSON escape.
func escape(b []byte, i, n int, code byte) []byte {
	return bytes.Join([][]byte{b[:i], b[i+n:]}, fmt.Appendf(nil, "\\u%04x", code))
}
