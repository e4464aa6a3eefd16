package status

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func at(sec int64) Time { return Time{time.Unix(sec, 0).UTC()} }

func full() Status {
	return Status{
		Master: "data", Slave: "backup::copy", State: Active, Crawl: HybridCrawl, LastSynced: at(1000), LagSeconds: 2.5,
		Pending: Pending{Entries: 1, Files: 2, Bytes: 3 << 20, Meta: 4}, Synced: Synced{4, 5, 6, 7, 8, 9},
		Failures: []Failure{{Path: "a\xff\n\x1b[2J", Op: "write", Error: "no space left\x07", Since: at(900)}},
		Reason:   "because", WorkerPid: 11, Marker: "fanotify", FailuresTotal: 3, Checkpoint: "N/A", Stime: 1<<64 - 1,
		StateSince: at(800), Updated: at(1001), MonitorPid: 10,
	}
}

func TestWriteRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status")
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read of nothing: %v", err)
	}
	for _, want := range []Status{full(), New("data", "s")} {
		if err := Write(path, want); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path)
		if len(want.Failures) == 0 {
			want.Failures = []Failure{}
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	if list, err := os.ReadDir(filepath.Dir(path)); err != nil || len(list) != 1 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	if err := Write(filepath.Join(path, "below"), full()); err == nil {
		t.Error("written below a file")
	}
	for _, damaged := range []string{"", "{", `{"last_synced":5}`} {
		if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil {
			t.Errorf("read of %q: no error", damaged)
		}
	}
}

func TestReadIsNeverTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status")
	one, two := full(), New("data", "s")
	one.Failures = make([]Failure, MaxFailures)
	for i := range one.Failures {
		one.Failures[i].Path = strings.Repeat("x", 200)
	}
	if err := Write(path, one); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			if err := errors.Join(Write(path, two), Write(path, one)); err != nil {
				t.Error(err)
			}
		}
	}()
	for n := 0; ; n++ {
		select {
		case <-done:
			return
		default:
		}
		st, err := Read(path)
		if err != nil || st.FailuresTotal != one.FailuresTotal && st.FailuresTotal != two.FailuresTotal || len(st.Failures) != 0 && len(st.Failures) != 100 {
			t.Fatalf("read %d: %d failures, %v", n, len(st.Failures), err)
		}
	}
}

// TestObjectiveWithoutMonitor: a session that a crash ended misses its objective, one that the operator stopped does not.
func TestObjectiveWithoutMonitor(t *testing.T) {
	s := full()
	s.ObjectiveSeconds, s.Objective, s.ObjectiveSince = 60, ObjectiveMet, at(900)
	for _, c := range []struct {
		now     int64
		started bool
		want    string
		since   Time
	}{{1060, true, ObjectiveMet, at(900)}, {1061, true, ObjectiveMissed, at(1060)}, {1061, false, "", Time{}}} {
		got := s.Now(View{Time: time.Unix(c.now, 0), Started: c.started})
		if got.Objective != c.want || !got.ObjectiveSince.Equal(c.since.Time) {
			t.Errorf("at %d, started %v: %q since %v", c.now, c.started, got.Objective, got.ObjectiveSince)
		}
	}
}

// TestPublicJSON holds the keys that others rely on.
func TestPublicJSON(t *testing.T) {
	var buf bytes.Buffer
	if err := WriteJSON(&buf, nil); err != nil || buf.String() != "[]\n" {
		t.Errorf("no sessions: %q, %v", buf.String(), err)
	}
	buf.Reset()
	never := New("data", "s")
	if err := WriteJSON(&buf, []Status{full(), never}); err != nil {
		t.Fatal(err)
	}
	var list []map[string]any
	if err := json.Unmarshal(buf.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Fields("master slave status crawl_status last_synced lag_seconds pending synced failures " +
		"reason worker_pid marker") {
		if _, ok := list[0][key]; !ok {
			t.Errorf("%s is missing", key)
		}
	}
	if lag, ok := list[1]["lag_seconds"]; !ok || lag != nil {
		t.Errorf("a session that never was in step has the lag %v, not null", lag)
	}
	if lag := list[0]["lag_seconds"]; lag != 2.5 {
		t.Errorf("lag %v", lag)
	}
	nested := map[string]string{"pending": "entries files bytes", "synced": "crawls files bytes_wire bytes_content renames purges"}
	for key, inner := range nested {
		for _, k := range strings.Fields(inner) {
			if _, ok := list[0][key].(map[string]any)[k]; !ok {
				t.Errorf("%s.%s is missing", key, k)
			}
		}
	}
	failure := list[0]["failures"].([]any)[0].(map[string]any)
	for _, k := range strings.Fields("path op error since") {
		if _, ok := failure[k]; !ok {
			t.Errorf("failures[].%s is missing", k)
		}
	}
	if list[0]["last_synced"] != "1970-01-01T00:16:40Z" || list[1]["last_synced"] != nil {
		t.Errorf("last_synced: %v, %v", list[0]["last_synced"], list[1]["last_synced"])
	}
	if f, ok := list[1]["failures"].([]any); !ok || len(f) != 0 {
		t.Errorf("no failures: %v", list[1]["failures"])
	}
}

func TestNow(t *testing.T) {
	now := time.Unix(1010, 0)
	base := full()
	base.Updated = at(1009)
	with := func(f func(*Status)) Status { s := base; f(&s); return s }
	for name, c := range map[string]struct {
		st     Status
		view   View
		state  State
		reason string
		lag    float64
	}{
		"running":                       {base, View{now, 10, true, true}, Active, "because", 3.5},
		"running, the pid not readable": {base, View{now, 0, true, true}, Active, "because", 3.5},
		"crashed":                       {base, View{now, 0, false, true}, Faulty, "run georep start data backup::copy", 10},
		"crashed when it was to stop":   {base, View{now, 0, false, false}, Stopped, "", 10},
		"stopped":                       {with(func(s *Status) { s.State = Stopped }), View{now, 0, false, false}, Stopped, "", 10},
		"stopped by a reboot": {with(func(s *Status) { s.State = Stopped }), View{now, 0, false, true}, Faulty,
			"the monitor is not running", 10},
		"never started":         {New("data", "s"), View{now, 0, false, false}, Created, "", 0},
		"never came up":         {New("data", "s"), View{now, 0, false, true}, Faulty, "run georep start data s", 0},
		"coming up":             {New("data", "s"), View{now, 5, true, true}, Initializing, "", 0},
		"coming up again":       {with(func(s *Status) { s.State = Stopped }), View{now, 5, true, true}, Initializing, "", 10},
		"of an earlier monitor": {base, View{now, 5, true, true}, Initializing, "", 10},
		"the monitor is stuck":  {base, View{now.Add(time.Hour), 10, true, true}, Faulty, "(pid 10) has said nothing", 3610},
		"the lag is never less": {with(func(s *Status) { s.State, s.LagSeconds = Faulty, 99 }), View{now, 10, true, true}, Faulty, "because", 100},
		"paused falls behind":   {with(func(s *Status) { s.State = Paused }), View{now, 10, true, true}, Paused, "because", 10},
		"in step":               {with(func(s *Status) { s.LagSeconds = 0 }), View{now, 10, true, true}, Active, "because", 0},
		"never synced":          {with(func(s *Status) { s.State, s.LastSynced = Faulty, Time{} }), View{now, 10, true, true}, Faulty, "because", 3.5},
		"never synced, no lag":  {with(func(s *Status) { s.State, s.LastSynced, s.LagSeconds = Faulty, Time{}, 0 }), View{now, 10, true, true}, Faulty, "because", 0},
	} {
		got := c.st.Now(c.view)
		if got.State != c.state || !strings.Contains(got.Reason, c.reason) || c.reason == "" && got.Reason != "" ||
			got.LagSeconds != c.lag {
			t.Errorf("%s: %s %q lag %v, want %s %q lag %v", name, got.State, got.Reason, got.LagSeconds, c.state, c.reason, c.lag)
		}
		if !c.view.Running && (got.WorkerPid != 0 || got.MonitorPid != 0) {
			t.Errorf("%s: pids %d and %d", name, got.WorkerPid, got.MonitorPid)
		}
		if got.State != Active && got.Crawl != NoCrawl {
			t.Errorf("%s: crawl %q", name, got.Crawl)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	s := Session{Master: "data", Slave: "s", StatusFile: filepath.Join(dir, "status"), PidFile: filepath.Join(dir, "pid")}
	if st, err := Load(s); err != nil || st.State != Created || st.Master != "data" {
		t.Errorf("nothing there: %+v, %v", st, err)
	}
	pid, err := AcquirePid(s.PidFile)
	if err != nil {
		t.Fatal(err)
	}
	defer pid.Close()
	mine := full()
	mine.MonitorPid, mine.Updated = os.Getpid(), Time{time.Now()}
	if err := Write(s.StatusFile, mine); err != nil {
		t.Fatal(err)
	}
	if st, err := Load(s); err != nil || st.State != Active || st.Slave != "s" {
		t.Errorf("running: %+v, %v", st, err)
	}
	pid.Close()
	if st, err := Load(s); err != nil || st.State != Stopped {
		t.Errorf("gone: %+v, %v", st, err)
	}
	if err := os.WriteFile(s.StatusFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Started = true
	if st, err := Load(s); err == nil || st.State != Faulty || st.Master != "data" {
		t.Errorf("damaged: %+v, %v", st, err)
	}
}

// TestReader: a status is read again when it was replaced, and not before.
func TestReader(t *testing.T) {
	dir := t.TempDir()
	s := Session{Master: "data", Slave: "s", StatusFile: filepath.Join(dir, "status"), PidFile: filepath.Join(dir, "pid")}
	r, st := new(Reader), full()
	loads := func(want string) {
		t.Helper()
		if got, err := r.Load(s); err != nil || got.Marker != want {
			t.Errorf("marker %q, %v; want %q", got.Marker, err, want)
		}
	}
	loads("")
	for _, marker := range []string{"fanotify", "inotify!", "scanning"} {
		st.Marker = marker
		if err := Write(s.StatusFile, st); err != nil {
			t.Fatal(err)
		}
		loads(marker)
	}
	info, err := os.Stat(s.StatusFile)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody but this test writes into the file.
	text, err := os.ReadFile(s.StatusFile)
	if err == nil {
		err = os.WriteFile(s.StatusFile, bytes.Replace(text, []byte("scanning"), []byte("fanotify"), 1), 0o600)
	}
	if err == nil {
		err = os.Chtimes(s.StatusFile, info.ModTime(), info.ModTime())
	}
	if err != nil {
		t.Fatal(err)
	}
	loads("scanning")
	if err := os.Remove(s.StatusFile); err != nil {
		t.Fatal(err)
	}
	loads("")
}

func TestTable(t *testing.T) {
	bad := full()
	bad.State, bad.Slave, bad.Reason = Faulty, "h:/\x1b]0;x\x07\u202e", "line\x1b[31m\r\nbreak"
	list := []Status{bad, New("other", "file:///donn\u00e9es")}
	var short, long bytes.Buffer
	if err := errors.Join(WriteTable(&short, list, false), WriteTable(&long, list, true)); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{short.String(), long.String()} {
		for _, r := range out {
			if r != '\n' && (r < ' ' || r == 0x7f || r == 0x202e || r == utf8.RuneError) {
				t.Errorf("%q comes out raw:\n%q", r, out)
			}
		}
	}
	lines := strings.Split(short.String(), "\n")
	if strings.Join(strings.Fields(lines[0]), " ") != "MASTER SLAVE STATUS CRAWL STATUS LAST_SYNCED" ||
		!strings.HasSuffix(short.String(), "\n\n1 session is Faulty, 3 entries are held back: georep status --detail says why\n") {
		t.Errorf("the table is\n%s", short.String())
	}
	col := strings.Index(lines[0], "STATUS")
	if !strings.HasPrefix(lines[2][col:], "Faulty ") || !strings.HasPrefix(string([]rune(lines[3])[col:]), "Created ") {
		t.Errorf("columns are not aligned:\n%s", short.String())
	}
	for _, want := range []string{"LAG", "ENTRY", "DATA", "META", "FAILURES", "CHECKPOINT", "2.5s", "2 (3.0 MiB)",
		`Faulty since`, `line\x1b[31m\r\nbreak`, `held back: "a\xff\n\x1b[2J"  write: no space left\a  (since `, "... and 2 more"} {
		if !strings.Contains(long.String(), want) {
			t.Errorf("the detail lacks %q:\n%s", want, long.String())
		}
	}
	if strings.Contains(short.String(), "break") || strings.Contains(long.String(), "other ->") {
		t.Errorf("too much:\n%s%s", short.String(), long.String())
	}
}

// TestPace: the detail says how fast it goes and how long it takes, where that is known.
func TestPace(t *testing.T) {
	s := New("data", "h::v")
	var idle, busy bytes.Buffer
	idleErr := WriteTable(&idle, []Status{s}, true)
	s.Rates, s.ETASeconds = Rates{Files: 12.34, BytesContent: 3 << 20, BytesWire: 1536}, 75
	if err := errors.Join(idleErr, WriteTable(&busy, []Status{s}, true)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(idle.String(), "files/s") || strings.Contains(idle.String(), "data ->") {
		t.Errorf("an idle session has a pace:\n%s", idle.String())
	}
	want := "  12.3 files/s, 3.0 MiB/s of content, 1.5 KiB/s on the wire, ETA 1m15s\n"
	if !strings.Contains(busy.String(), want) {
		t.Errorf("the detail lacks %q:\n%s", want, busy.String())
	}
	for eta, want := range map[float64]bool{0: false, 75: true} {
		s.ETASeconds = eta
		b, err := json.Marshal(s)
		text := string(b)
		if err != nil || strings.Contains(text, `"eta_seconds":75`) != want || strings.Contains(text, "eta_seconds") != want {
			t.Errorf("ETA %v: %s, %v", eta, b, err)
		}
	}
	s.State = Active
	view := View{Time: s.Updated.Time, Pid: 1, Running: true, Started: true}
	s.ETASeconds = 75
	if s.MonitorPid = 1; s.Now(view).ETASeconds != 75 {
		t.Error("the ETA of a session at work is not shown")
	}
	if view.Running = false; s.Now(view).ETASeconds != 0 {
		t.Error("an ETA though nobody replicates")
	}
}

func TestForPeople(t *testing.T) {
	for seconds, want := range map[float64]string{0: "", -1: "", math.NaN(): "", math.Inf(1): "", 1e300: "", 0.2: "ETA 1s",
		3700.4: "ETA 1h1m40s"} {
		if got := ETA(seconds); got != want {
			t.Errorf("ETA(%v) = %q, want %q", seconds, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 1 << 40: "1.0 TiB", 1<<63 - 1: "8.0 EiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
	for lag, want := range map[float64]string{0: "0s", 0.0123: "12ms", 2.51: "2.5s", 3700.4: "1h1m40s"} {
		if got := (Status{LagSeconds: lag, LastSynced: at(1)}).lag(); got != want {
			t.Errorf("lag %v: %q, want %q", lag, got, want)
		}
	}
	if got := (Status{}).lag(); got != "N/A" {
		t.Errorf("lag of what never synced: %q", got)
	}
	if got := OneLine(" a\r\n\nb\xff" + strings.Repeat("\u00e9", 1000)); !utf8.ValidString(got) || len(got) > 1010 ||
		!strings.HasPrefix(got, "a; b\uFFFD") || strings.ContainsAny(got, "\r\n") {
		t.Errorf("OneLine: %q", got)
	}
}

// TestWaiting: what waits survives the file and is named in the table, whatever bytes its name has.
func TestWaiting(t *testing.T) {
	s := New("m", "s")
	s.Waiting, s.WaitingTotal = []Waiting{{Path: "logs/\xff\x1b", Since: at(5)}}, 3
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var got Status
	if err := json.Unmarshal(b, &got); err != nil || len(got.Waiting) != 1 || got.Waiting[0].Path != s.Waiting[0].Path ||
		!got.Waiting[0].Since.Equal(at(5).Time) || got.WaitingTotal != 3 {
		t.Errorf("%+v, %v of %s", got, err, b)
	}
	var table strings.Builder
	if err := WriteTable(&table, []Status{s}, true); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(table.String(), `keeps changing: "logs/\xff\x1b"`) || !strings.Contains(table.String(), "2 more") {
		t.Error(table.String())
	}
}

// TestLastSyncedAheadOfTheClock: the clock was set back since the monitor wrote, so nothing is known by the new one.
func TestLastSyncedAheadOfTheClock(t *testing.T) {
	now := time.Now()
	for ahead, known := range map[time.Duration]bool{-time.Hour: true, 0: true, time.Hour: false} {
		s := Status{State: Active, Updated: Time{now}, LastSynced: Time{now.Add(ahead)}}
		if got := s.Now(View{Time: now, Running: true, Started: true}); got.LastSynced.IsZero() == known {
			t.Errorf("synced up to %v ahead of the clock: %v", ahead, got.LastSynced)
		}
	}
}

// TestClock: that the clock was set is told for as long as it matters, and no lag or objective goes by the step.
func TestClock(t *testing.T) {
	back := ClockStep{At: at(1000), BySeconds: -3600, Until: at(4600)}
	forward := ClockStep{At: at(4600), BySeconds: 3600}
	for name, c := range map[string]struct {
		step   ClockStep
		synced Time
		now    int64
		told   bool
	}{
		"set back":                          {back, at(1010), 1011, true},
		"set back, and not in step since":   {back, Time{}, 1011, true},
		"it has come up to where it was":    {back, at(4600), 4600, false},
		"set forward":                       {forward, at(999), 4601, true},
		"set forward, and in step since":    {forward, at(4600), 4601, false},
		"set forward during the first sync": {forward, Time{}, 4601, false},
	} {
		s := Status{State: Active, LastSynced: c.synced, Clock: Clock{ClockStep: &c.step}}
		got := s.Now(View{Time: time.Unix(c.now, 0), Running: true, Started: true})
		var short, long bytes.Buffer
		if err := errors.Join(WriteTable(&short, []Status{got}, false), WriteTable(&long, []Status{got}, true)); err != nil {
			t.Fatal(err)
		}
		if (got.ClockStep != nil) != c.told || strings.Contains(short.String(), "the clock of this host was set: georep status --detail") != c.told ||
			strings.Contains(long.String(), "  the clock of this host was set ") != c.told {
			t.Errorf("%s: %v\n%s%s", name, got.ClockStep, short.String(), long.String())
		}
	}
	s := Status{State: Faulty, Stime: 5, LastSynced: at(1000), Clock: Clock{ClockMoved: 3600}, ObjectiveSeconds: 60, Objective: ObjectiveMet}
	for now, objective := range map[int64]string{4660: ObjectiveMet, 4661: ObjectiveMissed} {
		got := s.Now(View{Time: time.Unix(now, 0), Running: true, Started: true})
		if got.LagSeconds != float64(now-4600) || got.Objective != objective {
			t.Errorf("at %d: lag %v, objective %s", now, got.LagSeconds, got.Objective)
		}
	}
	s.LastSynced, s.LagSeconds, s.Updated = Time{}, 61, at(10)
	if got := s.Now(View{Time: time.Unix(10, 0), Running: true, Started: true}); got.Objective != ObjectiveMissed {
		t.Errorf("set back beyond LAST_SYNCED: %+v", got)
	}
	s.LagSeconds = 59
	if got := s.Now(View{Time: time.Unix(10, 0), Running: true, Started: true}); got.Objective != ObjectiveMet {
		t.Errorf("set back beyond LAST_SYNCED, a moment ago: %+v", got)
	}
}

// TestMarshalOnce: a status is encoded in one go, not copied and checked once more by the JSON of a field or of itself. The
// long text alone, encoded, is the measure: the race detector makes a buffer's growth twice as dear.
func TestMarshalOnce(t *testing.T) {
	s := New("data", "backup::copy")
	s.NotKept = strings.Repeat("x", 64<<10)
	path := filepath.Join(t.TempDir(), "status")
	alone := allocated(t, func() error { return json.NewEncoder(new(bytes.Buffer)).Encode(s.NotKept) })
	whole := allocated(t, func() error { return Write(path, s) })
	if whole > alone*5/4 {
		t.Errorf("%d bytes are allocated for a status, %d for the %d bytes of text in it", whole, alone, len(s.NotKept))
	}
}

// allocated returns how many bytes a call of do allocates: the least of many, for now and then encoding/json has to make its
// own buffer anew, after a collection or where the race detector has its sync.Pool forget it.
func allocated(t *testing.T, do func() error) uint64 {
	t.Helper()
	least := uint64(math.MaxUint64)
	for range 50 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := do(); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		least = min(least, after.TotalAlloc-before.TotalAlloc)
	}
	return least
}

// TestDetailNamesTheSource: where changes are learnt from is what a person has to know of a copy that is late.
func TestDetailNamesTheSource(t *testing.T) {
	s := New("data", "backup::copy")
	s.Marker = "scan"
	var b strings.Builder
	if err := WriteTable(&b, []Status{s}, true); err != nil || !strings.Contains(b.String(), "changes are learnt from: scan") {
		t.Errorf("%v\n%s", err, b.String())
	}
}
