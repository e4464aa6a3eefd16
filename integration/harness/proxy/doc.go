// Package proxy is a long and unreliable network between a client and a server on loopback: it forwards TCP, holds
// every byte back for the delay of the line, may limit the rate, and cuts, stalls or refuses on command.
//
// It owns its listener, the connections through it and their goroutines, and Close waits for all of them. It never
// listens on or reaches out to anything but what it is told, and changes no byte.
//
// A line with a round trip of 100 ms and 1 Gbit/s before an sshd:
//
//	wan, err := proxy.New(sshd, proxy.Options{Delay: 50 * time.Millisecond, Rate: 125_000_000})
//	if err != nil {
//		t.Fatal(err)
//	}
//	defer wan.Close()
//	// ... connect to wan.Port(), work, and count:
//	sent := wan.Stats().BytesUp
//	wan.CutAfter(1 << 20) // the connection breaks in the middle of what comes now
//
// How it works: each direction of a connection has one goroutine that reads and one that writes, and between them a
// queue of parcels with the time at which each is due. The line that all connections share hands out these times, so
// the rate is that of the line and the delay is the same for every byte. Delivery passes one gate, where Stall holds it
// and CutAfter counts. Unlike a real line it takes data off the sender at once, up to Options.Window.
package proxy
