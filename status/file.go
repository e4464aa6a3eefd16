package status

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// fileMode is of the status and pid files: the paths of failures are nobody's business but the operator's.
const fileMode = 0o600

// Write replaces the status file as a whole. It is not durable: after a power cut the monitor writes a new one anyway.
// One writer at a time; any number of readers.
func Write(path string, s Status) error {
	var line bytes.Buffer
	if err := json.NewEncoder(&line).Encode(s.plain()); err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	// Always the same name, so that a monitor that is killed again and again leaves one file behind at most.
	tmp := filepath.Join(filepath.Dir(path), ".status.new")
	err := os.WriteFile(tmp, line.Bytes(), fileMode)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("write status: %w", err)
	}
	return nil
}

// Read reads a status file. The error is fs.ErrNotExist where there is none. After a power cut the file may be empty or
// damaged; that too is an error.
func Read(path string) (Status, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	s, err := parse(data)
	if err != nil {
		return Status{}, fmt.Errorf("read status %s: %w", path, err)
	}
	return s, nil
}
