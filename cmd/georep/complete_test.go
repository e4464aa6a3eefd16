package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"georep/volume"
)

// TestComplete: a shell gets commands, flags, volumes, slaves and keys, and nothing where the line is wrong.
func TestComplete(t *testing.T) {
	dir := t.TempDir()
	s, err := volume.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"data", "daily"} {
		if _, err := s.CreateVolume(volume.NewVolume{Name: name, Path: t.TempDir()}); err != nil {
			t.Fatal(err)
		}
	}
	slave, err := volume.ParseSlave("backup::copy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateSession(volume.Session{Master: "data", Slave: slave, Config: map[string]string{}}); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"sta|":                         "start status",
		"start da|":                    "daily data",
		"stop data |":                  "backup::copy",
		"stop data backup::|":          "backup::copy",
		"stop daily |":                 "",
		"stop data backup::copy |":     "",
		"config data backup::copy bw|": "bwlimit",
		"volume |":                     "create delete info list log purge set",
		"volume info d|":               "daily data",
		"volume set data max-|":        "max-bytes max-entries",
		"start --hint|":                "--hints",
		"start --hints on d|":          "daily data",
		"--log-f|":                     "--log-format",
		"nonsense |":                   "",
		"age|":                         "",
	} {
		words, word := strings.Fields(strings.TrimSuffix(line, "|")), ""
		if !strings.HasSuffix(line, " |") {
			words, word = words[:len(words)-1], words[len(words)-1]
		}
		argv := append([]string{"georep", "--state-dir", dir}, words...)
		var out, errs bytes.Buffer
		if code := run(t.Context(), append(argv, completeFlag, word), &out, &errs); code != exitDone || errs.Len() > 0 {
			t.Errorf("%s: exit code %d, %s", line, code, &errs)
		}
		got := strings.Fields(out.String())
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
