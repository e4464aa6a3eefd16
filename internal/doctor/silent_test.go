package doctor

import (
	"strings"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/marker/xtime"
	"georep/volume"
)

// TestWhatDoesNotAnswer: a master, or a slave of this host, whose file system hangs, as on a dead NFS server, is named, and is no end of
// the examination.
func TestWhatDoesNotAnswer(t *testing.T) {
	silent := t.TempDir()
	fstest.MountSilent(t, silent)
	for name, c := range map[string]struct {
		master, slave string
		silent        []string // the places that are
	}{
		"the master":                       {silent, "", []string{OfMaster}},
		"the slave":                        {t.TempDir(), silent, []string{OfSlave}},
		"the master of a slave that works": {silent, t.TempDir(), []string{OfMaster}},
	} {
		t.Run(name, func(t *testing.T) {
			store, err := volume.OpenStore(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			var found []Finding
			o := Options{Store: store, Volume: volume.Volume{Name: "data", Path: c.master, UUID: xtime.NewUUID().String()}, patience: 300 * time.Millisecond,
				Tell: func(f Finding) { found = append(found, f) }}
			if c.slave != "" {
				o.Session = &volume.Session{Master: "data", Slave: volume.Slave{Path: c.slave}, UUID: xtime.NewUUID().String(), Config: map[string]string{}}
			}
			worst := make(chan Level, 1)
			go func() { worst <- Run(t.Context(), o) }()
			select {
			case level := <-worst:
				var places []string
				for _, f := range found {
					if strings.Contains(f.Found, silent) && strings.Contains(f.Found, "has not answered") {
						places = append(places, f.Place)
					}
				}
				if level != Problem || strings.Join(places, " ") != strings.Join(c.silent, " ") {
					t.Errorf("%v: %+v", level, found)
				}
			case <-time.After(time.Minute):
				t.Error("it hangs, too")
			}
		})
	}
}
