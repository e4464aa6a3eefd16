package config

import (
	"slices"

	"github.com/pelletier/go-toml/v2/unstable"

	"georep/internal/web/listen"
)

// web takes the table of the web server, which counts for the service of this host.
func (m *meaning) web(t *table) {
	if m.out.Web != nil {
		m.problem(t.Place, "[web] is there already, in %s: take one of them out", m.out.Web.Place)
		return
	}
	out := &Web{Place: t.Place}
	out.Listen = listen.Default
	good := true
	for _, e := range t.keys {
		switch {
		case !slices.Contains(listen.Keys(), e.name):
			m.problem(e.Place, "unknown key %s%s", e.name, orKeys(e.name, listen.Keys()))
			good = false
		case e.kind != unstable.String || e.value == "":
			m.problem(e.Place, "%s is not text: write it in quotes", e.name)
			good = false
		case e.name == "listen":
			out.Listen = e.value
		default:
			out.Set(e.name, relative(e))
		}
	}
	if !good {
		return
	}
	if err := out.Check(); err != nil {
		m.problem(t.Place, "%v", err)
		return
	}
	m.out.Web = out
}
