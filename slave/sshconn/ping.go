package sshconn

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"
)

// keepalive is a request that every server answers, if only by refusing it.
const keepalive = "keepalive@openssh.com"

// maxPing is how many bytes one request carries at most: less than the 256 KiB that OpenSSH takes.
const maxPing = 32 << 10

// Ping sends the peer so many random bytes, which it drops, in requests of their own, and returns
// how long it took until the answer to the last of them was there. No window of any channel holds
// them up. It measures the line for `doctor`, and costs bytes in one direction. After ctx ends the
// requests are still sent.
func (c *Conn) Ping(ctx context.Context, bytes int) (time.Duration, error) {
	filling := make([]byte, min(max(bytes, 0), maxPing))
	_, _ = rand.Read(filling) // never fails
	done := make(chan error, 1)
	began := time.Now()
	if !c.start(func() { done <- c.sendAll(bytes, filling) }) {
		return 0, c.err()
	}
	select {
	case err := <-done:
		if err != nil && c.err() != nil {
			err = c.err()
		}
		return time.Since(began), err
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for an answer of %s: %w", c.addr, context.Cause(ctx))
	}
}

// sendAll sends the bytes, and waits for the answer to the last request.
func (c *Conn) sendAll(bytes int, filling []byte) error {
	for ; bytes > len(filling); bytes -= len(filling) {
		if _, _, err := c.client.SendRequest(keepalive, false, filling); err != nil {
			return fmt.Errorf("send to %s: %w", c.addr, err)
		}
	}
	if _, _, err := c.client.SendRequest(keepalive, true, filling[:max(bytes, 0)]); err != nil {
		return fmt.Errorf("send to %s: %w", c.addr, err)
	}
	return nil
}

// Server is what the peer's SSH server calls itself, for people.
func (c *Conn) Server() string { return clean(string(c.client.ServerVersion())) }
