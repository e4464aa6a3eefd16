package web

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"

	"georep/internal/health"
	"georep/internal/history"
	"georep/status"
)

// sessionJSON is a session as programs see it. The names are an interface.
type sessionJSON struct {
	ID     string        `json:"id"`
	Level  string        `json:"level"` // ok, warning, critical or unknown
	Why    string        `json:"why"`
	Status status.Status `json:"session"`
}

func toJSON(s *Session) sessionJSON {
	return sessionJSON{ID: s.ID, Level: strings.ToLower(s.Verdict.Level.String()), Why: s.Verdict.Why, Status: s.Status}
}

// oneJSON is a session with its settings and how it went.
type oneJSON struct {
	sessionJSON
	Settings map[string]string `json:"settings"`
	History  historyJSON       `json:"history"`
}

// historyJSON has a value for each step; null where nothing is known.
type historyJSON struct {
	Span  string                `json:"span"` // hour, day or week
	Step  float64               `json:"step_seconds"`
	From  status.Time           `json:"from"` // of the first value
	Lag   map[string][]*float64 `json:"lag_seconds"`
	Rate  map[string][]*float64 `json:"bytes_content_per_second"`
	Bytes map[string][]*float64 `json:"pending_bytes"`
	Count map[string][]*float64 `json:"pending_entries"`
}

func (s *server) apiList(w http.ResponseWriter, _ *http.Request) {
	now := s.source.snapshot()
	out := make([]sessionJSON, 0, len(now.Sessions))
	for _, one := range now.Sessions {
		out = append(out, toJSON(one))
	}
	writeJSON(w, out)
}

func (s *server) apiOne(w http.ResponseWriter, r *http.Request) {
	now := s.source.snapshot()
	one := now.find(r.PathValue("id"))
	if one == nil {
		w.WriteHeader(http.StatusNotFound)
		writeJSON(w, map[string]string{"error": "there is no such session"})
		return
	}
	span, name := spanOf(r)
	points, err := history.Read(historyFile(s.o.Store.Files(one.Master, one.Slave)), now.Time, span)
	if err != nil {
		s.o.Log.Warn().Err(err).Msg("a history cannot be read")
	}
	settings := map[string]string{}
	for _, x := range settingsOf(one) {
		settings[x.Key] = x.Value
	}
	writeJSON(w, oneJSON{toJSON(one), settings, toHistory(points, span, name)})
}

func toHistory(points []history.Point, span history.Span, name string) historyJSON {
	out := historyJSON{Span: name, Step: span.Step().Seconds(), Lag: column(points, history.Lag), Rate: column(points, history.Rate),
		Bytes: column(points, history.Pending), Count: column(points, history.Entries)}
	if len(points) > 0 {
		out.From = status.Time{Time: points[0].Time}
	}
	return out
}

func column(points []history.Point, s history.Series) map[string][]*float64 {
	out := map[string][]*float64{"avg": make([]*float64, len(points)), "max": make([]*float64, len(points))}
	for i := range points {
		out["avg"][i], out["max"][i] = number(points[i].Avg[s]), number(points[i].Max[s])
	}
	return out
}

func number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// spanOf is what a request wants to look back over.
func spanOf(r *http.Request) (history.Span, string) {
	switch name := r.URL.Query().Get("span"); name {
	case "day":
		return history.Day, name
	case "week":
		return history.Week, name
	}
	return history.Hour, "hour"
}

// healthz is 503 while a session is Faulty or too far behind.
func (s *server) healthz(w http.ResponseWriter, _ *http.Request) {
	now := s.source.snapshot()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	var bad []string
	for _, one := range now.Sessions {
		if one.Verdict.Level >= health.Critical {
			bad = append(bad, status.Printable(fmt.Sprintf("%s %s: %s", one.Master, one.Slave, one.Verdict.Why)))
		}
	}
	if now.Err != nil && len(bad) == 0 {
		bad = append(bad, status.Printable(status.OneLine(now.Err.Error())))
	}
	if len(bad) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, strings.Join(bad, "\n")+"\n")
		return
	}
	fmt.Fprintf(w, "ok: %d sessions\n", len(now.Sessions))
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(status.JSONWriter{W: w})
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // a client that is gone
}
