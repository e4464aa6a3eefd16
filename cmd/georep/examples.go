package main

// examples are the commands as one types them, a line each. What a line does stands after "#".
var examples = map[string][]string{
	"volume create": {"georep volume create data /srv/data"},
	"volume list":   {"georep volume list", "georep volume list --json"},
	"volume info":   {"georep volume info data"},
	"volume set": {
		"georep volume set copy                       # all of its policy",
		"georep volume set copy keep-deleted 7d       # on the slave's host",
	},
	"volume log":    {"georep volume log copy"},
	"volume delete": {"georep volume delete data"},
	"volume purge":  {"georep volume purge /srv/copy                # on the slave's host"},
	"create":        {"georep create /srv/data backup.example.org:/srv/copy"},
	"start": {
		"georep start /srv/data backup.example.org:/srv/copy",
		"georep start data backup.example.org::copy --bwlimit 2M",
		"georep start data                            # where it has one session",
		"georep start                                 # all that were started",
	},
	"stop":    {"georep stop data backup.example.org::copy", "georep stop data"},
	"restart": {"georep restart data"},
	"pause":   {"georep pause data"},
	"resume":  {"georep resume data"},
	"sync": {
		"georep sync /srv/data backup.example.org:/srv/copy",
		"georep sync /srv/data sftp://me@storage.example.org/copy",
		"georep sync --dry-run data backup.example.org::copy    # touches nothing",
	},
	"approve": {
		"georep approve data backup.example.org::copy          # shows, and asks",
		"georep approve data --yes",
	},
	"verify": {
		"georep verify data backup.example.org::copy",
		"georep verify data backup.example.org::copy some/directory",
	},
	"authorize": {
		"georep authorize data root@backup.example.org::copy",
		"georep authorize data backup.example.org::copy --print",
	},
	"doctor": {
		"georep doctor                                # this host",
		"georep doctor data                           # a master, and its one slave",
		"georep doctor /srv/data backup.example.org:/srv/copy    # before create",
	},
	"promote": {
		"georep promote copy                          # on the slave's host",
		"georep promote copy --force                  # the master is still connected",
	},
	"demote": {"georep demote copy                           # on the slave's host"},
	"divergence": {
		"georep divergence data                       # on the old master's host",
		"georep divergence data --null > changed      # for rsync --from0 --files-from",
	},
	"restore": {"georep restore sftp://me@storage.example.org/copy /srv/data.new"},
	"status": {
		"georep status",
		"georep status data --detail",
		"georep status --watch",
		"georep status --json",
		"georep status --incoming                     # on a slave's host",
		"georep status --check --max-lag 5m           # for Nagios, Icinga, ...",
	},
	"logs": {"georep logs data -f", "georep logs data backup.example.org::copy -n 100"},
	"checkpoint": {
		"georep checkpoint data backup.example.org::copy --name before-upgrade",
		"georep checkpoint data --list",
		"georep checkpoint data --name before-upgrade --delete",
	},
	"wait": {
		"georep wait data backup.example.org::copy    # all that is there now",
		"georep wait data --checkpoint before-upgrade --timeout 10m",
		`georep wait data --until "2026-11-30 21:00:00"`,
	},
	"config": {
		"georep config data backup.example.org::copy  # all settings",
		"georep config data backup.example.org::copy bwlimit 2M",
	},
	"delete": {
		"georep delete data backup.example.org::copy",
		"georep delete data backup.example.org::copy --purge-metadata",
	},
	"apply":       {"georep apply --dry-run", "georep apply"},
	"configcheck": {"georep configcheck --config ./georep.toml"},
	"demo":        {"georep demo"},
	"web": {
		"georep web",
		"georep web --listen unix:/run/georep/web.sock",
		"georep web --listen :9847 --tls-cert c.pem --tls-key c.key --client-ca ca.pem",
	},
	"serve": {
		"georep serve                                 # on the slave's host",
		"georep serve --fingerprint                   # for the master's --host-key",
	},
	"run": {"georep run                                   # what georep.service does"},
}

// about says what the one line on a command has no room for.
var about = map[string]string{
	"wait": `It exits with 0 when the slave has it on its disk, with 124 when --timeout has
passed, and with 1 when it cannot come: the session is stopped. It waits
through Faulty and Paused, and says why it waits. It exits with 3 where the
slave has all that georep can see, but georep may not see who holds some files
open: what is written to these by libaio, a loop device or a mapping may be
missing. --ignore-hidden-writers takes that for 0.`,
	"web": `Every page, /metrics for Prometheus, /healthz and /api/v1 only look: nothing can
be changed by them. Other addresses than those of this host need TLS, and a
token or the certificates of clients. The service does the same where the
configuration file has a [web].`,
	"status": `STATUS is
   Created          registered, and never started
   Initializing...  started, and not yet connected
   Active           replicating, or in step
   Faulty           something holds it up; --detail says what, and it is tried
                    again
   Paused, Stopped  by georep pause and georep stop
CRAWL STATUS is
   Changelog Crawl  the marker tells which names have changed
   until TIME       it waits for its window (windows), and marks meanwhile
   Hybrid Crawl     directories are compared: at a start, and after trouble
   N/A              neither: it does not run
LAST_SYNCED is the time up to which the slave has all that was changed.
On a slave's host the sessions of its masters stand below: who, from where, and
up to when the stamp of the slave's root reaches.
--check ends with 0, 1, 2 or 3: OK; WARNING, where something is held back, or
the session is stopped, paused or in its first sync; CRITICAL, where it is
Faulty or behind by more than --max-lag; UNKNOWN. The worst session counts.`,
}

// groups are the flags of a command with many of them, in the order in which its help shows them.
var groups = []struct {
	title string
	flags []string
}{
	{"The slave", []string{"force", "yes", "ssh-port", "identity", "known-hosts", "host-key", "remote-georep", "remote-state-dir", "agentless", "retry-max"}},
	{"What is replicated", []string{"exclude", "include", "exclude-from", "exclude-larger-than", "exclude-caches", "delete-excluded"}},
	{"What is removed", []string{"max-delete", "free-deletes", "keep-deleted"}},
	{"How changes are found", []string{"marker-source", "scan-interval", "hints", "quiet-period", "max-delay", "quick"}},
	{"What is told", []string{"max-lag", "hook-command", "hook-url", "hook-key-file", "hook-events", "hook-changed", "hook-changed-pattern"}},
	{"When, and how much", []string{"bwlimit", "windows", "compression", "sync-jobs"}},
}

// manyFlags is how many a command has whose help shows them in groups.
const manyFlags = 12
