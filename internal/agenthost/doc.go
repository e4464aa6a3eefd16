// Package agenthost is what a slave's host lets in: it finds the volume or directory that a master asks the agent for, holds the
// login to what it may have, and the master to the policy of the volume (invariant 18), and keeps a record of who did what.
//
// Everything here is decided by the slave's own registry, the flags of the forced command and what sshd says of the login;
// nothing that a master sends widens it.
package agenthost
