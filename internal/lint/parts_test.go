package lint

import (
	"path/filepath"
	"testing"

	"georep/internal/lint/metrics"
)

// A type with more methods or fields than these is several parts in one.
const (
	maxMethods = 40
	maxFields  = 15
)

// size is how large a type is.
type size struct{ methods, fields int }

// large are the types that are beyond a bound, as large as they are today. None may grow; one that has shrunk gets its new
// size here, and none at all once it is within the bounds.
var large = map[string]size{
	// Several parts in one, to be taken apart.
	"crawler.Crawler":        {19, 24},
	"crawler.crawl":          {176, 32},
	"crawler.dryRun":         {28, 16},
	"crawler.follower":       {21, 26},
	"crawler.node":           {7, 35},
	"internal/worker.teller": {10, 19},
	"monitor.machine":        {20, 23},
	"monitor.runner":         {13, 18},
	"slave/agent.hub":        {9, 22},
	// A call, a command or a value of the wire for each method.
	"cmd/georep.env":         {112, 3},
	"internal/beneath.Dir":   {72, 8},
	"marker/inotify.Source":  {64, 16},
	"slave/agent.Client":     {42, 13},
	"slave/agent.decoder":    {44, 4},
	"slave/sftp/wire.Client": {42, 15},
	"volume.Store":           {47, 1},
	// What is said, shown or chosen, field by field: there is nothing in it to take apart.
	"crawler.Counters":        {7, 23},
	"crawler.Options":         {2, 20},
	"marker.Options":          {1, 17},
	"marker.Status":           {0, 17},
	"monitor/report.Progress": {0, 23},
	"slave.Info":              {0, 17},
	"slave.Op":                {2, 17},
	"slave/agent.Hello":       {2, 18},
	"status.Status":           {14, 39},
	"volume.Options":          {0, 24},
}

// TestParts holds types to a size at which one can know them whole.
func TestParts(t *testing.T) {
	types := map[string]size{}
	for _, path := range goFiles(t) {
		f, err := metrics.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		dir, _ := filepath.Rel(root(t), filepath.Dir(path))
		for name, r := range f.Receivers {
			sum := types[dir+"."+name]
			types[dir+"."+name] = size{sum.methods + r.Methods, sum.fields + r.Fields}
		}
	}
	for name, now := range types {
		switch was, known := large[name]; {
		case known && now != was && (now.methods > maxMethods || now.fields > maxFields):
			t.Errorf("%s has %d methods and %d fields, large has %d and %d: take apart what has grown, write down what has shrunk",
				name, now.methods, now.fields, was.methods, was.fields)
		case !known && now.methods > maxMethods:
			t.Errorf("%s has %d methods, more than %d", name, now.methods, maxMethods)
		case !known && now.fields > maxFields:
			t.Errorf("%s has %d fields, more than %d", name, now.fields, maxFields)
		}
	}
	for name := range large {
		if now := types[name]; now.methods <= maxMethods && now.fields <= maxFields {
			t.Errorf("%s is within the bounds, and needs no exception", name)
		}
	}
}
