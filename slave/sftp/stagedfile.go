package sftp

import (
	"sync"

	"georep/slave/sftp/wire"
)

// stagedFile is a large content on its way to staging.
type stagedFile struct {
	stager *stager
	// c is the session that f was opened on: a handle is of one session only.
	c    *wire.Client
	f    *wire.Handle
	path string
	away chan struct{} // a slot for each piece that is not answered
	// wait counts the pieces on their way; mu guards err, which is of the last that failed.
	wait sync.WaitGroup
	mu   sync.Mutex
	err  error
}

// piecesAway is how many pieces of one content may be on their way.
const piecesAway = 64

// write sends a piece; its error may be that of an earlier one.
func (s *stagedFile) write(data []byte, off int64) error {
	for step := s.c.MaxWrite(); len(data) > 0; {
		piece := append([]byte(nil), data[:min(step, len(data))]...)
		at := off
		data, off = data[len(piece):], off+int64(len(piece))
		s.away <- struct{}{}
		s.wait.Go(func() {
			defer func() { <-s.away }()
			if err := s.f.Write(piece, at); err != nil {
				s.mu.Lock()
				s.err = err
				s.mu.Unlock()
			}
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// drop gives up.
func (s *stagedFile) drop() error {
	if s == nil {
		return nil
	}
	s.wait.Wait()
	s.f.Release()
	return nil
}

// finish waits for all pieces and makes the file complete. A content in memory is staged later.
func (s *stagedFile) finish(it *item) error {
	if s == nil {
		return nil
	}
	s.wait.Wait()
	if s.err != nil {
		s.f.Release()
		return s.err
	}
	return s.stager.complete(s.f, it)
}
