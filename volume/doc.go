// Package volume is the registry: which directory trees are volumes, and which volume is replicated to which slave.
//
// It owns the state directory's layout,
//
//	lock                                  held around every change of the registry
//	volumes/NAME.toml                     a volume
//	volumes/NAME.d/                       what its marker process keeps while it runs
//	sessions/MASTER_SLAVE/session.toml    a session: one master volume and one slave, escaped
//	sessions/MASTER_SLAVE/{status,pid,log}
//
// and the grammar of the MASTER and SLAVE arguments. Every file is written whole, durably and with mode 0600, so a
// reader never meets half a file and no lock is needed to read. Several processes may use one state directory.
//
// It never touches the trees themselves, never starts a process and never opens a connection.
package volume
