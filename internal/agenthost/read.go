package agenthost

import (
	"bufio"
	"encoding/json"
	"io"
)

// maxLine bounds a line of the audit log: a path may be long.
const maxLine = 2 << 20

// readEvents adds the events of r. Lines that are no JSON are passed over.
func readEvents(r io.Reader, events []Event) ([]Event, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var e Event
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			events = append(events, e)
		}
	}
	return events, lines.Err()
}
