package crawler

import (
	"context"

	"georep/slave"
)

// stopping is a content that ends with an error once its crawl is given up, so that a batch under way, which is awaited,
// does not take as long as a large file does.
type stopping struct {
	slave.Content
	crawl context.Context
}

// Next implements slave.Content.
func (s stopping) Next() (slave.Piece, error) {
	if err := s.crawl.Err(); err != nil {
		return slave.Piece{}, err
	}
	return s.Content.Next()
}
