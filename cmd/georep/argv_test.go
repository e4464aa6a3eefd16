package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestReorder(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "",
		"status":                          "status",
		"status --json m":                 "status --json -- m",
		"status m s --json":               "status --json -- m s",
		"status m --json s":               "status --json -- m s",
		"status m --state-dir /x":         "--state-dir /x status -- m",
		"--state-dir=/x status m":         "--state-dir=/x status -- m",
		"start m s --ssh-port 22 --force": "start --ssh-port 22 --force -- m s",
		"start m --ssh-port=22 s":         "start --ssh-port=22 -- m s",
		"--log-level debug start m s":     "--log-level debug start -- m s",
		"start m s --log-level debug":     "start --log-level debug -- m s",
		"status m --log-level debug":      "--log-level debug status -- m",
		"volume create a /b":              "volume create -- a /b",
		"volume --state-dir /x list":      "--state-dir /x volume list",
		"volume info a --json":            "volume info --json -- a",
		"config m s max-delete -- -5":     "config -- m s max-delete -5",
		"config m s -- --reset":           "config -- m s --reset",
		"config m s identity -":           "config -- m s identity -",
		"start m s --identity --force":    "start --identity --force -- m s",
		"start -h":                        "start -h",
		"-v":                              "-v",
		"help":                            "--help",
	} {
		got, err := reorder(testApp(), strings.Fields("georep "+in))
		if have := strings.TrimPrefix(strings.Join(got, " "), "georep"); err != nil || strings.TrimSpace(have) != want {
			t.Errorf("%q becomes %q, %v; want %q", in, have, err, want)
		}
	}
}

func TestReorderRefuses(t *testing.T) {
	for in, word := range map[string]string{
		"nonsense":                  `"nonsense"`,
		"volume nonsense":           `"volume nonsense"`,
		"--nonsense status":         `"--nonsense"`,
		"status --nonsense":         `"--nonsense"`,
		"status --nonsense=1":       `"--nonsense=1"`,
		"start m s --ssh-port":      "--ssh-port",
		"--json status":             `"--json"`,
		"volume create a /b --json": `"--json"`,
		"-- nonsense":               `"nonsense"`,
	} {
		got, err := reorder(testApp(), strings.Fields("georep "+in))
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), word) {
			t.Errorf("%q becomes %q, %v", in, got, err)
		}
	}
}

// FuzzReorder: nothing that is typed is lost, doubled or made up.
func FuzzReorder(f *testing.F) {
	f.Add("status m --json s")
	f.Add("start -- -x")
	f.Fuzz(func(t *testing.T, in string) {
		words := strings.Fields(in)
		got, err := reorder(testApp(), append([]string{"georep"}, words...))
		if err != nil {
			return
		}
		count := map[string]int{}
		for _, w := range words {
			count[w]++
		}
		for _, w := range got[1:] {
			count[w]--
		}
		for w, n := range count {
			if n != 0 && w != "--" && w != "help" && w != "--help" {
				t.Errorf("%q becomes %q: %q", in, got, w)
			}
		}
	})
}

func testApp() *cli.App { return newApp(&env{out: io.Discard, err: io.Discard}) }
