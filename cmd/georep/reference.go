package main

import (
	"fmt"
	"strings"

	"georep/slave/policy"
	"georep/volume"
)

// configReference is docs/configuration.md: what can be set, out of the tables that the program itself goes by.
func configReference() string {
	var b strings.Builder
	b.WriteString(`# Configuration

This page is made by ` + "`georep generate configuration`" + `: a test holds it to the program.

## Settings of a session

They are set by ` + "`georep config MASTER SLAVE KEY VALUE`" + `, as flags of ` + "`georep create`" + ` and ` + "`georep start`" + `
(` + "`--max-delete 20`" + `), or as keys of ` + "`[defaults]`" + ` and ` + "`[[session]]`" + ` in ` + "`/etc/georep/georep.toml`" + `. A running session takes
a new value up at once.

| key | default | what it is |
|---|---|---|
`)
	for _, k := range volume.ConfigKeys() {
		configRow(&b, k.Name, k.Default, k.Doc)
	}
	b.WriteString(`
## Policy of a slave

It is set on the slave's host, by ` + "`georep volume set NAME KEY VALUE`" + ` or in ` + "`[volume.policy]`" + `, and holds for every master. As a flag of
` + "`georep agent`" + ` in ` + "`authorized_keys`" + ` it holds for one key. Where both say something the stricter one counts.

| key | default | what it is |
|---|---|---|
`)
	for _, k := range policy.Keys() {
		value := k.Default
		if k.Bool {
			value = "off"
		}
		configRow(&b, k.Name, value, k.Doc)
	}
	return b.String()
}

func configRow(b *strings.Builder, name, value, doc string) {
	if value != "" {
		value = "`" + value + "`"
	}
	doc = strings.ReplaceAll(doc, "|", `\|`)
	fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, value, doc)
}
