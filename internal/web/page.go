package web

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"georep/internal/events"
	"georep/internal/health"
	"georep/internal/history"
	"georep/status"
	"georep/volume"
)

//go:embed assets
var assets embed.FS

// shownEvents is how many of the latest events a page has.
const shownEvents = 50

// pages are the templates.
type pages struct{ list, one *template.Template }

func newPages() (*pages, error) {
	with := func() *template.Template { return template.New("base.html").Funcs(template.FuncMap{"breaks": breaks}) }
	list, err := with().ParseFS(assets, "assets/base.html", "assets/list.html")
	if err != nil {
		return nil, fmt.Errorf("the page: %w", err)
	}
	one, err := with().ParseFS(assets, "assets/base.html", "assets/session.html")
	if err != nil {
		return nil, fmt.Errorf("the page: %w", err)
	}
	return &pages{list, one}, nil
}

// breaks are the parts of a slave's name between which a line may end.
func breaks(s string) (parts []string) {
	for len(s) > 0 {
		n := strings.IndexAny(s, "@/:") + 1
		for n > 0 && n < len(s) && strings.ContainsRune("/:", rune(s[n])) {
			n++
		}
		if n <= 0 {
			n = len(s)
		}
		parts, s = append(parts, s[:n]), s[n:]
	}
	return parts
}

// frame is what every page has. All texts of pages have gone through status.Printable: no name shows as what it is not.
type frame struct {
	Title, Host, Time, Version string
	Icon                       string // the worst level: the colour of the icon
	Trouble                    string // what could not be read
	Gone                       bool
}

func (s *server) frame(now *Snapshot, title string) frame {
	host, err := os.Hostname()
	if err != nil {
		host = "this host"
	}
	f := frame{Title: title, Host: status.Printable(host), Time: now.Time.Local().Format("15:04:05 MST"), Version: s.o.Version}
	worst := health.OK
	for _, one := range now.Sessions {
		worst = max(worst, one.Verdict.Level)
	}
	f.Icon = class(worst)
	if now.Err != nil {
		f.Trouble = status.Printable(status.OneLine(now.Err.Error()))
	}
	return f
}

// class is what a level is called in the style sheet.
func class(l health.Level) string { return strings.ToLower(l.String()) }

// row is a session in a list.
type row struct {
	ID, Master, Slave, State, Level, Why    string
	Lag, Synced, Rate, Pending, Failed, ETA string
	Spark                                   string
	Busy                                    bool
}

type listPage struct {
	frame
	Headline string
	Counts   []count
	Rows     []row
}

type count struct {
	Level, Text string
}

func (s *server) list(w http.ResponseWriter, _ *http.Request) {
	now := s.source.snapshot()
	p := listPage{frame: s.frame(now, "georep")}
	of := map[health.Level]int{}
	for _, one := range now.Sessions {
		of[one.Verdict.Level]++
		r := rowOf(one)
		r.Spark = spark(s.recorder.lags(one.ID))
		p.Rows = append(p.Rows, r)
	}
	p.Headline = headline(len(now.Sessions), of)
	for _, c := range health.Counts(of) {
		p.Counts = append(p.Counts, count{class(c.Level), c.Text})
	}
	s.show(w, s.pages.list, p, http.StatusOK)
}

func headline(all int, of map[health.Level]int) string {
	bad := all - of[health.OK]
	switch {
	case all == 0:
		return "Nothing is replicated"
	case bad == 0 && all == 1:
		return "The session is in order"
	case bad == 0:
		return fmt.Sprintf("All %d sessions are in order", all)
	case bad == 1:
		return "1 session needs attention"
	}
	return fmt.Sprintf("%d sessions need attention", bad)
}

func rowOf(one *Session) row {
	st := &one.Status
	r := row{ID: one.ID, Master: status.Printable(one.Master), Slave: status.Printable(one.Slave.String()), State: string(st.State),
		Level: class(one.Verdict.Level), Why: status.Printable(why(one)), Lag: "–", Synced: since(st.LastSynced), Rate: "–",
		Pending: "–", Failed: "–", ETA: status.ETA(st.ETASeconds), Busy: st.Rates.BytesContent > 0}
	if lag, known := st.Lag(); known {
		r.Lag = seconds(lag.Seconds())
	}
	if wait := st.WaitsFor(); wait != "" && r.Why == "" {
		r.Why = status.Printable(wait)
	}
	if r.Busy {
		r.Rate = status.Bytes(int64(st.Rates.BytesContent)) + "/s"
	}
	if st.Pending.Bytes > 0 {
		r.Pending = status.Bytes(st.Pending.Bytes)
	} else if st.Pending.Entries > 0 {
		r.Pending = fmt.Sprintf("%d entries", st.Pending.Entries)
	}
	if st.FailuresTotal > 0 {
		r.Failed = fmt.Sprint(st.FailuresTotal)
	}
	return r
}

// why leaves out the state, which stands beside it.
func why(one *Session) string {
	state := string(one.Status.State)
	rest, cut := strings.CutPrefix(one.Verdict.Why, state)
	switch {
	case !cut:
		return one.Verdict.Why
	case rest == "":
		return ""
	}
	return strings.TrimLeft(rest, ":; ")
}

// since is a time for people, "" where there is none.
func since(t status.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format(time.DateTime)
}

// fact is a line of what is known of a session.
type fact struct{ Name, Value, Level string }

type heldBack struct{ Path, Op, Error, Since string }

type happened struct{ Time, Kind, Text, Level string }

type setting struct {
	Key, Value string
	Set        bool
}

type onePage struct {
	frame
	row
	Facts    []fact
	Spans    []spanLink
	Charts   []chart
	Held     []heldBack
	MoreHeld int
	Waiting  []heldBack
	Events   []happened
	Settings []setting
	Command  string
}

type spanLink struct {
	Name string
	Here bool
}

func (s *server) one(w http.ResponseWriter, r *http.Request) {
	now := s.source.snapshot()
	one := now.find(r.PathValue("id"))
	if one == nil {
		p := onePage{frame: s.frame(now, "no such session - georep")}
		p.Gone = true
		s.show(w, s.pages.one, p, http.StatusNotFound)
		return
	}
	files := s.o.Store.Files(one.Master, one.Slave)
	p := onePage{row: rowOf(one), Facts: facts(one), Settings: settingsOf(one)}
	p.frame = s.frame(now, p.Master+" → "+p.Slave+" - georep")
	p.Icon = p.Level
	p.Command = "georep logs " + p.Master + " " + p.Slave + " -f"
	span, name := spanOf(r)
	for _, each := range []string{"hour", "day", "week"} {
		p.Spans = append(p.Spans, spanLink{each, each == name})
	}
	points, err := history.Read(historyFile(files), now.Time, span)
	if err != nil {
		p.Trouble = status.Printable(status.OneLine(err.Error()))
	}
	p.Charts = drawAll(points, name)
	p.trouble(&one.Status)
	list, err := events.Read(files.Dir, 0)
	if err != nil {
		p.Trouble = status.Printable(status.OneLine(err.Error()))
	}
	p.Events = told(list)
	s.show(w, s.pages.one, p, http.StatusOK)
}

// trouble lists what is held back, and what waits.
func (p *onePage) trouble(st *status.Status) {
	for _, f := range st.Failures {
		p.Held = append(p.Held, heldBack{status.Printable(f.Path), status.Printable(f.Op), status.Printable(f.Error), since(f.Since)})
	}
	p.MoreHeld = st.FailuresTotal - len(st.Failures)
	for _, f := range st.Waiting {
		why := "keeps changing"
		if f.Large {
			why = "on its way"
		}
		p.Waiting = append(p.Waiting, heldBack{status.Printable(f.Path), why, "", since(f.Since)})
	}
}

// told are the latest events, the newest first.
func told(list []events.Event) (out []happened) {
	slices.Reverse(list)
	for i := range list {
		if i == shownEvents {
			break
		}
		e := &list[i]
		out = append(out, happened{Time: since(status.Time{Time: e.Time}), Kind: status.Printable(string(e.Kind)),
			Text: status.Printable(e.Message), Level: levelOf(e)})
	}
	return out
}

func levelOf(e *events.Event) string {
	switch e.Kind {
	case events.Failure, events.ObjectiveMissed, events.PurgeRefused:
		return class(health.Warning)
	case events.StateChanged:
		if e.State == string(status.Faulty) {
			return class(health.Critical)
		}
	}
	return class(health.OK)
}

// facts are what is known of a session, and worth a line.
func facts(one *Session) (out []fact) {
	st := &one.Status
	add := func(name, value string) {
		if value != "" {
			out = append(out, fact{Name: name, Value: status.Printable(value)})
		}
	}
	add("Pending", fmt.Sprintf("%d entries, %d files, %s", st.Pending.Entries, st.Pending.Files, status.Bytes(st.Pending.Bytes)))
	add("Sent since the monitor began", fmt.Sprintf("%d files, %s of content, %s on the wire", st.Synced.Files,
		status.Bytes(st.Synced.BytesContent), status.Bytes(st.Synced.BytesWire)))
	add("Renamed, removed", fmt.Sprintf("%d, %d", st.Synced.Renames, st.Synced.Purges))
	if st.ObjectiveSeconds > 0 {
		add("Objective", strings.TrimSpace("lag below "+seconds(st.ObjectiveSeconds)+" "+st.Objective))
	}
	add("State since", since(st.StateSince))
	add("Finds changes by", strings.Trim(string(st.Crawl)+", "+st.Marker, ", "))
	add("Worker restarts", fmt.Sprint(st.Restarts))
	var memory []string
	held := one.memory()
	for _, name := range []string{"monitor", "worker"} {
		if n := held[name]; n > 0 {
			memory = append(memory, name+" "+status.Bytes(n))
		}
	}
	add("Memory", strings.Join(memory, ", "))
	add("Checkpoint", strings.TrimPrefix(st.Checkpoint, "N/A"))
	add("Filter", st.Filter)
	add("Policy of the slave", st.SlavePolicy)
	add("Not kept by the slave", st.NotKept)
	add("The marker", st.MarkerWaits)
	if st.ClockStep != nil {
		add("The clock", st.ClockStep.String())
	}
	add("Written unseen", st.HiddenWriters)
	add("Confined", st.Confined)
	return out
}

// settingsOf are all settings; those that were set come first.
func settingsOf(one *Session) (out []setting) {
	for _, k := range volume.ConfigKeys() {
		value, set, err := one.Get(k.Name)
		if err != nil {
			continue
		}
		out = append(out, setting{k.Name, status.Printable(discreet(k.Name, value)), set})
	}
	slices.SortStableFunc(out, func(a, b setting) int {
		switch {
		case a.Set == b.Set:
			return 0
		case a.Set:
			return -1
		}
		return 1
	})
	return out
}

// discreet leaves out what of a setting may be a secret: the addresses of hooks, and the arguments of their commands, may let whoever
// knows them in elsewhere.
func discreet(key, value string) string {
	shown := value
	switch key {
	case "hook-url":
		at, err := url.Parse(value)
		if err != nil || at.Host == "" {
			shown = ""
		} else {
			shown = at.Scheme + "://" + at.Host + "/"
		}
	case "hook-command":
		shown, _, _ = strings.Cut(value, " ")
	}
	if shown != value {
		shown += " ..."
	}
	return shown
}

// show fills a template whole before anything is sent.
func (s *server) show(w http.ResponseWriter, t *template.Template, data any, code int) {
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "base.html", data); err != nil {
		s.o.Log.Error().Err(err).Msg("the page cannot be made")
		http.Error(w, "the page cannot be made: see the log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}

// static serves the style sheet, the script and the icon.
func (s *server) static(w http.ResponseWriter, r *http.Request) {
	kinds := map[string]string{"style.css": "text/css; charset=utf-8", "refresh.js": "text/javascript; charset=utf-8", "ok.svg": "image/svg+xml",
		"warning.svg": "image/svg+xml", "critical.svg": "image/svg+xml", "unknown.svg": "image/svg+xml"}
	name := r.PathValue("name")
	text, err := assets.ReadFile("assets/" + name)
	if kinds[name] == "" || err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", kinds[name])
	w.Header().Set("Cache-Control", "max-age=300")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
}
