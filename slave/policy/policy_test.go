package policy

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const (
	one = "11111111-1111-4111-8111-111111111111"
	two = "22222222-2222-4222-8222-222222222222"
)

func TestEveryKeyIsSetAndShown(t *testing.T) {
	values := map[string]string{"keep-deleted": "48h0m0s", "owner": "1000:1001", "master": one, "max-bytes": "500M", "max-entries": "7",
		"hook-command": "/bin/tell 'a b'", "hook-changed-pattern": "*.html\n/img/"}
	nonsense := map[string]string{"hook-changed-pattern": "\x00"} // nearly anything is a pattern
	for _, k := range Keys() {
		var p Policy
		if got, err := p.Get(k.Name); err != nil || got != k.Default {
			t.Errorf("%s is %q at first, %v; want %q", k.Name, got, err, k.Default)
		}
		value, ok := values[k.Name]
		if !ok {
			value = "on"
		}
		if err := p.Set(k.Name, value); err != nil {
			t.Fatal(err)
		}
		if got, err := p.Get(k.Name); err != nil || got != value {
			t.Errorf("%s is %q, %v; want %q", k.Name, got, err, value)
		}
		if reflect.DeepEqual(p, Policy{}) {
			t.Errorf("%s changes nothing", k.Name)
		}
		// A key narrows on its own, from either side, and forgets nothing.
		if !reflect.DeepEqual(p.Narrow(Policy{}), p) || !reflect.DeepEqual(Policy{}.Narrow(p), p) || !reflect.DeepEqual(p.Narrow(p), p) {
			t.Errorf("%s is lost where policies meet", k.Name)
		}
		bad, ok := nonsense[k.Name]
		if !ok {
			bad = "?"
		}
		if err := p.Set(k.Name, bad); err == nil || !strings.Contains(err.Error(), k.Name) || !strings.Contains(err.Error(), k.Doc) {
			t.Errorf("%s takes nonsense: %v", k.Name, err)
		}
	}
	if err := new(Policy).Set("no-such", "on"); err == nil || !strings.Contains(err.Error(), "keep-deleted") {
		t.Errorf("an unknown key: %v", err)
	}
}

// A volume's own hook counts before that of a login, pattern and all.
func TestOneHook(t *testing.T) {
	own, login := Policy{Hook: "/own"}, Policy{Hook: "/login", HookPattern: "x"}
	if got := own.Narrow(login); got != own {
		t.Errorf("%+v", got)
	}
	if got := (Policy{HookPattern: "y"}).Narrow(login); got != login {
		t.Errorf("%+v", got)
	}
}

func TestNarrow(t *testing.T) {
	day, week := Policy{KeepDeleted: 24 * time.Hour}, Policy{KeepDeleted: 7 * 24 * time.Hour}
	if day.Narrow(week) != week || week.Narrow(day) != week {
		t.Error("the longer time does not win")
	}
	less, more := Policy{MaxBytes: 1 << 20, MaxEntries: 9}, Policy{MaxBytes: 1 << 30, MaxEntries: 8}
	if got, want := less.Narrow(more), (Policy{MaxBytes: 1 << 20, MaxEntries: 8}); got != want || more.Narrow(less) != want {
		t.Errorf("the lower limit does not win: %+v", got)
	}
	for _, test := range []struct{ a, b, want string }{
		{First, one, one}, {one, First, one}, {one, one, one}, {one, two, nobody}, {First, First, First},
	} {
		if got := (Policy{Master: test.a}).Narrow(Policy{Master: test.b}).Master; got != test.want {
			t.Errorf("%s and %s: %s, want %s", test.a, test.b, got, test.want)
		}
	}
}

func TestOwner(t *testing.T) {
	for _, bad := range []string{"1", "1:", ":1", "a:b", "-1:0", "4294967295:0", "0:4294967295", "1:2:3"} {
		if o, err := owner(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, o)
		}
	}
}
