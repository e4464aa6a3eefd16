package web

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"georep/internal/events"
	"georep/internal/history"
	"georep/internal/web/listen"
	"georep/status"
	"georep/volume"
)

// browser is a Chromium without a screen.
type browser struct {
	*testing.T
	dir string
}

// run gives what Chromium prints.
func (b *browser) run(args ...string) string {
	b.Helper()
	base := []string{"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--mute-audio",
		"--user-data-dir=" + filepath.Join(b.dir, "profile"), "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"}
	cmd := exec.Command("chromium", append(base, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+b.dir, "XDG_CONFIG_HOME="+b.dir, "XDG_CACHE_HOME="+b.dir)
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("chromium %q: %v", args, err)
	}
	return string(out)
}

// busySite has sessions in all states, with a past.
func busySite(t *testing.T) (*site, volume.Session) {
	x := newSite(t)
	for _, name := range []string{"data", "home", "mail", "projects"} {
		x.volume(name)
	}
	now := time.Now()
	synced := active(0.4)
	synced.Synced = status.Synced{Files: 20412, BytesContent: 91 << 30, BytesWire: 31 << 30, Renames: 412, Purges: 90, Crawls: 3000}
	synced.Rates = status.Rates{Files: 12, BytesContent: 3.4e6, BytesWire: 1e6}
	synced.Pending = status.Pending{Entries: 12, Files: 9, Bytes: 18 << 20}
	synced.Confined = "the agent by capabilities, Landlock, seccomp; the marker by capabilities, seccomp"
	x.session("home", "root@backup.example.org::home", synced)
	bad := active(7300)
	bad.State, bad.StateSince = status.Faulty, status.Time{Time: now.Add(-2 * time.Hour)}
	bad.Reason = "connect to backup.example.org: dial tcp 192.0.2.7:22: connection refused; see whether sshd runs there, and tried again"
	x.session("mail", "root@backup.example.org::mail", bad)
	first := active(0)
	first.LastSynced, first.ETASeconds, first.Crawl = status.Time{}, 4000, status.HybridCrawl
	first.Rates, first.Pending = status.Rates{BytesContent: 88e6}, status.Pending{Entries: 210000, Files: 190000, Bytes: 340 << 30}
	x.session("projects", "sftp://me@storage.example.org/georep/projects", first)
	paused := active(1)
	paused.State = status.Paused
	x.session("projects", "root@paris.example.org::projects", paused)
	held := active(12)
	held.ObjectiveSeconds, held.Objective = 300, status.ObjectiveMet
	held.Pending = status.Pending{Entries: 3, Files: 3, Bytes: 4 << 10}
	held.Failures = []status.Failure{
		{Path: "reports/2026/annual summary (final).ods", Op: "write", Error: "permission denied", Since: status.Time{Time: now.Add(-9 * time.Minute)}},
		{Path: "www/cache/" + strings.Repeat("very-long-name-", 12) + "\xff.tmp", Op: "make", Error: "file name too long", Since: status.Time{Time: now.Add(-time.Hour)}},
	}
	held.FailuresTotal = 3
	held.Waiting = []status.Waiting{{Path: "db/journal.log", Since: status.Time{Time: now.Add(-4 * time.Second)}}}
	s := x.session("data", "root@backup.example.org::copy", held)
	if _, err := x.store.UpdateSession(s.Master, s.Slave, func(s *volume.Session) error { return s.Set("bwlimit", "08:00,2M 19:00,off") }); err != nil {
		t.Fatal(err)
	}
	x.past(s, now)
	return x, s
}

// past makes an hour and a week of history, and some events.
func (x *site) past(s volume.Session, now time.Time) {
	x.Helper()
	w, err := history.Open(historyFile(x.store.Files(s.Master, s.Slave)))
	if err != nil {
		x.Fatal(err)
	}
	defer w.Close()
	random := rand.New(rand.NewPCG(1, 1))
	put := func(at time.Time) {
		busy := math.Max(0, math.Sin(float64(at.Unix())/700)) + 0.2*random.Float64()
		v := history.Sample{busy * 9, busy * 5e6, busy * 80e6, busy * 40}
		if m := now.Sub(at).Minutes(); m > 30 && m < 35 { // the service did not run
			return
		}
		if err := w.Add(at, v); err != nil {
			x.Fatal(err)
		}
	}
	for at := now.Add(-5 * 24 * time.Hour); at.Before(now.Add(-time.Hour)); at = at.Add(15 * time.Minute) {
		put(at)
	}
	for at := now.Add(-time.Hour); at.Before(now); at = at.Add(history.Every) {
		put(at)
	}
	j, _, err := events.Open(x.store.Files(s.Master, s.Slave).Dir, 0)
	if err != nil {
		x.Fatal(err)
	}
	defer j.Close()
	for i, e := range []events.Event{
		{Kind: events.StateChanged, State: "Active", Message: "the session is Active"},
		{Kind: events.FirstSync, Message: "the slave is in step for the first time"},
		{Kind: events.StateChanged, State: "Faulty", Message: "the session is Faulty: connect to backup.example.org: connection refused"},
		{Kind: events.StateChanged, State: "Active", Message: "the session is Active"},
		{Kind: events.Failure, Path: "reports/2026/annual summary (final).ods", Message: "held back: reports/2026/annual summary (final).ods: permission denied"},
	} {
		e.Time, e.Master, e.Slave = now.Add(time.Duration(i-5)*11*time.Minute), s.Master, s.Slave.String()
		if _, err := j.Append(e); err != nil {
			x.Fatal(err)
		}
	}
}

// probe is a script that tells what a browser makes of a page: what sticks out of the window, and what the policy of the page forbids.
// It tells again after the page has put a new copy of itself in its place.
const probe = `"use strict";
const forbidden = [];
document.addEventListener("securitypolicyviolation", e => forbidden.push(e.violatedDirective + " " + e.blockedURI));
addEventListener("error", e => forbidden.push(e.message));
function look() {
  const wide = [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1);
  const out = document.getElementById("probe") || document.body.appendChild(document.createElement("pre"));
  out.id = "probe";
  out.hidden = true;
  out.textContent = JSON.stringify({width: innerWidth, scroll: document.documentElement.scrollWidth, forbidden,
    wide: wide.slice(0, 5).map(e => e.tagName + "." + e.getAttribute("class") + " " + e.textContent.slice(0, 60)), styled: getComputedStyle(document.body).margin,
    stale: document.body.classList.contains("stale")});
}
addEventListener("load", look);
setInterval(look, 1000);`

// phone is a page with a window as narrow as a phone's in it, which copies out what the probe tells. A browser's own is never so narrow.
const phone = `<!doctype html><pre id="told"></pre><iframe id="phone" width="390" height="844" style="border:0" src="%s"></iframe><script>
setInterval(() => {
  const told = document.getElementById("phone").contentDocument.getElementById("probe");
  if (told) document.getElementById("told").textContent = told.textContent;
}, 300);</script>`

// probed is a site whose pages have the probe, and that counts who asks for them.
func (x *site) probed(asked *atomic.Int64) string {
	routes := x.s.routes()
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/static/probe.js" {
			w.Header().Set("Content-Type", "text/javascript")
			io.WriteString(w, probe)
			return
		}
		if r.URL.Path == "/phone" {
			fmt.Fprintf(w, phone, r.URL.RawQuery)
			return
		}
		rec := httptest.NewRecorder()
		d, err := listen.Open(listen.Options{Listen: "127.0.0.1:0"})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer d.Close()
		guard(d, routes).ServeHTTP(rec, r)
		maps.Copy(w.Header(), rec.Header())
		w.Header().Set("Content-Security-Policy", strings.Replace(rec.Header().Get("Content-Security-Policy"), "frame-ancestors 'none'", "", 1))
		w.Header().Del("X-Frame-Options")
		body := rec.Body.String()
		if strings.HasPrefix(rec.Header().Get("Content-Type"), "text/html") {
			asked.Add(1)
			body = strings.Replace(body, "</body>", `<script src="/static/probe.js"></script></body>`, 1)
		}
		w.WriteHeader(rec.Code)
		io.WriteString(w, body)
	}))
	x.Cleanup(ts.Close)
	return ts.URL
}

// TestBrowser: in a real one nothing sticks out of a phone's screen, the page's policy forbids nothing of the page, and the page keeps
// itself up to date. With GEOREP_SHOTS=DIR it leaves pictures for people to look at: two widths, light and dark.
func TestBrowser(t *testing.T) {
	x, s := busySite(t)
	x.s.recorder.record(x.s.source.snapshot())
	b := &browser{t, t.TempDir()}
	var asked atomic.Int64
	url := x.probed(&asked)
	for _, path := range []string{"/", "/session/" + s.UUID} {
		asked.Store(0)
		dom := b.run("--virtual-time-budget=7000", "--dump-dom", url+"/phone?"+path)
		_, rest, found := strings.Cut(dom, `<pre id="told">`)
		text, _, _ := strings.Cut(rest, "</pre>")
		var saw struct {
			Width, Scroll   int
			Forbidden, Wide []string
			Styled          string
			Stale           bool
		}
		if err := json.Unmarshal([]byte(html.UnescapeString(text)), &saw); err != nil || !found {
			t.Fatalf("%s: %v: %.2000s", path, err, dom)
		}
		if saw.Width != 390 || saw.Scroll > saw.Width || len(saw.Wide)+len(saw.Forbidden) > 0 || saw.Styled != "0px" || saw.Stale {
			t.Errorf("%s: %+v", path, saw)
		}
		if asked.Load() < 2 {
			t.Errorf("%s does not keep itself up to date", path)
		}
	}
	if dir := os.Getenv("GEOREP_SHOTS"); dir != "" {
		b.pictures(dir, x.url, map[string]string{"list": "/", "one": "/session/" + s.UUID})
	}
}

func (b *browser) pictures(dir, url string, pages map[string]string) {
	b.Helper()
	for name, path := range pages {
		for width, height := range map[int]int{1280: 1700, 390: 2900} {
			for mode, n := range map[string]int{"dark": 0, "light": 1} {
				b.run(fmt.Sprintf("--window-size=%d,%d", width, height), fmt.Sprintf("--blink-settings=preferredColorScheme=%d", n),
					"--screenshot="+filepath.Join(dir, fmt.Sprintf("%s-%d-%s.png", name, width, mode)), url+path)
			}
		}
	}
}
