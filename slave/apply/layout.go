package apply

// What lies in slave.Reserved, of every kind of slave.
const (
	Owner   = "owner"   // whose the slave is (slave.Owner)
	Lease   = "lease"   // who uses the slave by SFTP alone
	Staging = "staging" // where every file is made, before it gets its name
	Partial = "partial" // what was received of contents that are sent ahead
	Parked  = "parked"  // what has left the tree, and may come back
	Trash   = "trash"   // what is taken apart
)
