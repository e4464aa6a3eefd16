// Package web shows how the sessions stand to browsers, to Prometheus and to programs, over HTTP. It changes nothing: there is no
// request that does more than look.
//
// The way of a request: guard (guard.go: who may ask, for which host, by which method) -> page, metrics, api or events -> Source
// (source.go), which reads the registry and the status files at most once a second for all requests together. recorder.go
// samples the sessions into their histories (internal/history), and chart.go draws these.
//
// Where it may listen is package listen's.
package web

import (
	"time"

	"github.com/rs/zerolog"

	"georep/volume"
)

// Options say what to serve.
type Options struct {
	Store   *volume.Store
	Log     zerolog.Logger
	Version string

	now func() time.Time // time.Now but in tests
}
