package monitor

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/rs/zerolog"
	"gopkg.in/natefinch/lumberjack.v2"

	"georep/status"
)

// A session's log: 10 MB and three older ones.
const (
	// logMegabytes is the size at which the log is put aside and a new one begun.
	logMegabytes = 10
	// logBackups is how many of those are kept.
	logBackups = 3
	// maxLogLine bounds the memory that one line of a worker takes, in bytes. A longer one is logged in parts.
	maxLogLine = 64 << 10
)

// newLog opens the rotated log. Lines also go to console where that is not nil.
func newLog(path string, console io.Writer) (io.Writer, io.Closer) {
	return newLogOf(path, console, logMegabytes)
}

// newLogOf is newLog with the size at which a file is put aside. Nothing is opened before the first line. The closer
// ends the log file alone; the console stays the caller's.
func newLogOf(path string, console io.Writer, megabytes int) (io.Writer, io.Closer) {
	file := &lumberjack.Logger{Filename: path, MaxSize: megabytes, MaxBackups: logBackups}
	if console == nil {
		return file, file
	}
	return &tee{file: file, console: console}, file
}

// tee writes whole lines to both; a console that is gone does not stop the log. The console's
// errors are dropped, since nobody could be told.
type tee struct {
	// mu keeps lines whole: the loop, the keeper and the reader of the worker's stderr all log.
	mu      sync.Mutex
	file    io.Writer
	console io.Writer
}

// Write reports the log's outcome alone.
func (t *tee) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.console.Write(p)
	return t.file.Write(p)
}

// stderrLog copies a worker's standard error to the session's log and remembers what explains the worker's end.
type stderrLog struct {
	log  zerolog.Logger // wraps lines that are not JSON: a panic, a library's cry
	sink io.Writer
	path string // of the log, for the operator
	last string // the newest error; or how a panic began
}

// read copies lines until the pipe ends. For one goroutine; explain may be called after it.
func (s *stderrLog) read(r io.Reader) {
	in := bufio.NewReaderSize(r, maxLogLine)
	for {
		line, err := in.ReadSlice('\n')
		if text := strings.TrimRight(string(line), "\r\n"); text != "" {
			s.line(text)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// line passes on what is JSON as it is, and wraps what is not.
func (s *stderrLog) line(text string) {
	var l struct {
		Level   string `json:"level"`
		Message string `json:"message"`
		Error   string `json:"error"`
	}
	if json.Unmarshal([]byte(text), &l) != nil {
		s.log.Error().Str("from", "worker").Msg(text)
		// What follows the first line of a panic are goroutines and addresses, which explain nothing to an operator.
		if !strings.HasPrefix(s.last, "panic: ") && !strings.HasPrefix(s.last, "fatal error: ") {
			s.last = text
		}
		return
	}
	io.WriteString(s.sink, text+"\n")
	if l.Level == "error" || l.Level == "fatal" || l.Level == "panic" {
		s.last = join(l.Message, l.Error)
	}
}

// join puts a message and its cause together; either may be missing.
func join(message, cause string) string {
	if message == "" || cause == "" {
		return message + cause
	}
	return message + ": " + cause
}

// explain says for the operator why the worker ended. It is called when the pipe has ended, so
// everything that the worker said is there.
func (s *stderrLog) explain(how string) string {
	if s.last == "" {
		return "the worker ended (" + how + "): see " + s.path
	}
	return "the worker ended (" + how + "): " + status.OneLine(s.last)
}

// plain takes the message out of a line of JSON log.
func plain(line string) string {
	var l struct {
		Message string `json:"message"`
		Error   string `json:"error"`
	}
	if json.Unmarshal([]byte(line), &l) == nil && l.Message+l.Error != "" {
		line = join(l.Message, l.Error)
	}
	return status.OneLine(line)
}
