package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"georep/status"
)

// TestMetrics: promtool finds nothing to complain of, and what the status says is there, also for names that are no text.
func TestMetrics(t *testing.T) {
	x := newSite(t)
	x.volume("data")
	st := active(2.5)
	st.Synced = status.Synced{Files: 7, BytesContent: 8, BytesWire: 9, Renames: 10, Purges: 11, Crawls: 12}
	st.FailuresTotal, st.Restarts, st.ObjectiveSeconds, st.Objective = 3, 2, 60, status.ObjectiveMet
	x.session("data", "h::a", st)
	never := active(0)
	never.LastSynced, never.State, never.Crawl = status.Time{}, status.Initializing, status.NoCrawl
	x.session("data", "file:///b\xff\"\\\n", never)
	text := x.get("/metrics", 200)
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	const one = `{master="data",slave="h::a"}`
	for _, want := range []string{"georep_failures" + one + " 3\n", "georep_files_total" + one + " 7\n", "georep_content_bytes_total" + one + " 8\n",
		"georep_wire_bytes_total" + one + " 9\n", "georep_renames_total" + one + " 10\n", "georep_purges_total" + one + " 11\n",
		"georep_crawls_total" + one + " 12\n", "georep_worker_restarts_total" + one + " 2\n", "georep_objective_seconds" + one + " 60\n",
		"georep_objective_missed" + one + " 0\n", `georep_session_state{master="data",slave="h::a",state="active"} 1`,
		`georep_session_state{master="data",slave="h::a",state="faulty"} 0`, "georep_build_info{", "georep_unreadable 0", "\nprocess_resident_memory_bytes ",
		`georep_process_resident_memory_bytes{master="data",process="worker",slave="h::a"}`} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	// It grows from when the status was written.
	_, lag, _ := strings.Cut(text, "\ngeorep_lag_seconds"+one+" ")
	lag, _, _ = strings.Cut(lag, "\n")
	if v, err := strconv.ParseFloat(lag, 64); err != nil || v < 2.5 || v > 600 {
		t.Errorf("the lag is %q, want 2.5 s or a little more", lag)
	}
	if n := strings.Count(text, "\ngeorep_lag_seconds{"); n != 1 {
		t.Errorf("%d sessions have a lag: one was never in step", n)
	}
	if n := strings.Count(text, "\ngeorep_pending_bytes{"); n != 2 {
		t.Errorf("%d sessions are there", n)
	}
}

// TestMetricsOfLookalikes: names that differ only by how a character is written spoil no scrape.
func TestMetricsOfLookalikes(t *testing.T) {
	x := newSite(t)
	x.volume("data")
	names := []string{"/d\u200b", "/d\u00ad", "/d\u00a0", "/d\u0085", "/d\u007f", "/c\x1b", "/c\xff", "/c\\", "/c\\\\", "/c\ufffd"}
	names = append(names, `/c\x1b`, `/c\xff`, `/d\u200b`, `/d\u00ad`, `/d\u00a0`, `/d\u0085`, `/d\x7f`)
	for _, name := range names {
		x.session("data", "h:"+name, active(0))
	}
	text := x.get("/metrics", 200)
	if n := strings.Count(text, "\ngeorep_pending_bytes{"); n != len(names) {
		t.Errorf("%d of %d sessions are there", n, len(names))
	}
}

// TestPrometheus: a real one scrapes, and answers with what the status says.
func TestPrometheus(t *testing.T) {
	x := newSite(t)
	x.volume("data")
	x.session("data", "h::a", active(42))
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("scrape_configs:\n- job_name: georep\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  static_configs:\n  - targets: [%q]\n",
		strings.TrimPrefix(x.url, "http://"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	base := startPrometheus(t, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"))
	for query, want := range map[string]string{
		`georep_lag_seconds{master="data"} >= bool 42`: "1", `up{job="georep"}`: "1", `georep_session_state{state="active"}`: "1",
	} {
		var got string
		for end := time.Now().Add(2 * time.Minute); got == "" || got[:1] != want[:1]; time.Sleep(50 * time.Millisecond) {
			if got = ask(base, query); time.Now().After(end) {
				t.Fatalf("%s is %q, want %s", query, got, want)
			}
		}
	}
}

// startPrometheus starts one, and gives its address.
func startPrometheus(t *testing.T, args ...string) string {
	t.Helper()
	port := freePort(t)
	cmd := exec.Command("prometheus", append(args, "--web.listen-address=127.0.0.1:"+port, "--log.level=error")...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("prometheus said: %.3000s", said.String())
		}
	})
	return "http://127.0.0.1:" + port
}

// ask gives the value of a query; "" where there is none yet.
func ask(base, query string) string {
	r, err := http.Get(base + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	var answer struct {
		Data struct{ Result []struct{ Value []any } }
	}
	if json.NewDecoder(r.Body).Decode(&answer) != nil || len(answer.Data.Result) != 1 || len(answer.Data.Result[0].Value) != 2 {
		return ""
	}
	return fmt.Sprint(answer.Data.Result[0].Value[1])
}

// TestMetricsAreDocumented: docs/monitoring.md has each of them, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(georep_\\w+)` \\|").FindAllStringSubmatch(string(doc), -1) {
		rows[m[1]] = true
	}
	for name := range allMetrics() {
		if !rows[name] {
			t.Errorf("nothing of %s is in docs/monitoring.md", name)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("docs/monitoring.md has %s, which there is not", name)
	}
}

// allMetrics are the names of all that a session may have.
func allMetrics() map[string]bool {
	names := map[string]bool{}
	ch := make(chan *prometheus.Desc, 100)
	newCollector(nil, "").Describe(ch)
	close(ch)
	for d := range ch {
		names[regexp.MustCompile(`fqName: "(\w+)"`).FindStringSubmatch(d.String())[1]] = true
	}
	return names
}
