package packaging

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// documented are the metrics of docs/monitoring.md, which a test in internal/web holds to those that there are.
func documented(t *testing.T) map[string]bool {
	t.Helper()
	doc, err := os.ReadFile("../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(georep_\\w+)` \\|").FindAllStringSubmatch(string(doc), -1) {
		names[m[1]] = true
	}
	if len(names) < 15 {
		t.Fatalf("%d metrics are documented", len(names))
	}
	return names
}

// promtool runs it in a directory.
func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v\n%s", args, err, out)
	}
}

// TestAlerts: each alert fires when it should, and not before.
func TestAlerts(t *testing.T) {
	promtool(t, "monitoring", "check", "rules", "georep.rules.yml")
	promtool(t, "monitoring", "test", "rules", "georep.rules.test.yml")
	rules, err := os.ReadFile("monitoring/georep.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("monitoring/georep.rules.test.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(rules), -1) {
		if !regexp.MustCompile(`alertname: ` + m[1] + "\n *exp_alerts:\n").Match(tests) {
			t.Errorf("no test has %s fire", m[1])
		}
	}
	known(t, "georep.rules.yml", string(rules))
}

// known wants that a text names only metrics that there are.
func known(t *testing.T, where, text string) {
	t.Helper()
	names := documented(t)
	for _, name := range regexp.MustCompile(`georep_\w+`).FindAllString(text, -1) {
		if !names[name] {
			t.Errorf("%s names %s, which there is not", where, name)
		}
	}
}

// TestDashboard: each query can be parsed, and names only metrics and labels that there are.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("monitoring/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	known(t, "grafana-dashboard.json", string(text))
	var board struct {
		Title, UID string
		Panels     []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	taken := map[[2]int]string{}
	for _, p := range board.Panels {
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Errorf("%q lies on %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			query := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*", "$master", ".*", "$slave", ".*").Replace(target.Expr)
			if strings.Contains(query, "$") || query == "" {
				t.Errorf("%q: %q", p.Title, query)
			}
			rules.WriteString("  - record: dashboard:query\n    expr: '" + query + "'\n    labels: {n: '" + strings.ReplaceAll(p.Title+query, "'", "") + "'}\n")
		}
	}
	if len(board.Panels) < 10 {
		t.Errorf("%d panels", len(board.Panels))
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rules.yml"), []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, dir, "check", "rules", "rules.yml")
}
