package worker

import "georep/slave"

// logged is what was logged, so that it is not logged again.
type logged struct {
	lost    slave.Lost
	evicted bool
	trouble string // the last
}

// tellLost says once what the slave cannot keep. Each kind of loss is told once in the life of the
// worker, and each lost entry once.
func (t *teller) tellLost() {
	lost := slave.Lost(t.counters.Lost.Load())
	if fresh := lost &^ t.logged.lost; fresh != 0 {
		t.log.Warn().Stringer("lost", fresh).Msg("the slave's files cannot keep everything")
	}
	t.logged.lost = lost
	if t.counters.Evicted.Load() && !t.logged.evicted {
		t.logged.evicted = true
		t.log.Warn().Msg("the slave is full: removed entries that it still keeps are deleted before keep-deleted has passed, the oldest first")
	}
	for _, l := range t.counters.TakeLosses() {
		t.log.Warn().Str("path", l.Path).Stringer("lost", l.Lost).Msg("the slave's file system cannot keep something of this entry")
	}
}
