package crawler_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"georep/slave"
)

// TestNamesLeftBehindByAnotherCrawl: files moved out of a directory that was removed behind them, and the crawl that gave them
// their new names could not park it. What is left there is no removal for the next crawl either.
func TestNamesLeftBehindByAnotherCrawl(t *testing.T) {
	const files = 1200 // more than may always be removed
	w, f := failingWorld(t)
	w.maxDelete = 50
	w.connect()
	for i := range files {
		w.write(fmt.Sprint("d/f", i), "x")
	}
	w.mark("")
	w.inStep()
	w.forget()
	w.ok(os.Mkdir(w.at("a"), 0o755))
	var changed []string
	for i := range files {
		to := fmt.Sprint("a/f", i)
		w.ok(os.Rename(w.at(fmt.Sprint("d/f", i)), w.at(to)))
		changed = append(changed, to)
	}
	w.ok(os.Remove(w.at("d")))
	f.fail = func(op *slave.Op) error {
		if op.Kind == slave.OpPark && op.Path == "d" {
			return syscall.EIO
		}
		return nil
	}
	w.hints.Hint(w.hint(append(changed, "d")...))
	w.pass()
	f.fail = nil
	w.mark("a")
	for range 3 {
		w.pass()
	}
	w.inStep()
	if n := w.counters.Bytes.Load(); n > 0 {
		t.Errorf("%d bytes were sent", n)
	}
}
