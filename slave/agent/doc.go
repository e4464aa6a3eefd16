// Package agent carries a slave.Tree over one byte stream, or several: Dial gives the master's worker a Client that
// implements slave.Tree, DialGroup a Group of them; Serve answers at the far end of an SSH connection with a tree of the
// slave's host. PROTOCOL.md has the messages and the reasons for them.
//
// It owns the stream and the wire format, which nobody else knows. It never touches the file system, never prints, and
// trusts nothing that arrives: every length is checked against what is really there before anything is allocated, a
// message that does not decode or validate ends the session with an error, and text from the far end is made printable.
//
// The content of a batch follows its operations in the same stream, and the goroutine that reads the stream stages it:
// what the slave's disk does not take is not read, so the sender waits and memory stays bounded at both ends.
package agent

import (
	"time"

	"georep/slave"
)

// Protocol is the number of the wire protocol. Two ends work together only if it is the same.
const Protocol = 9

// MaxStreams is how many streams a session may have.
const MaxStreams = 16

const (
	// keepAlive is how long an end writes nothing before it says that it lives.
	keepAlive = 10 * time.Second
	// clientSilence and serverSilence are how long an end waits for any byte before it takes the other for dead. The
	// server's is longer, so that it is the worker who reports a link that is down.
	clientSilence = 30 * time.Second
	serverSilence = 60 * time.Second
	// handshakeTime bounds Dial, opening the tree included.
	handshakeTime = 60 * time.Second
	// parting is how long the last words of a server may take.
	parting = 5 * time.Second
	// joinTime bounds what the processes of the slave's end say to each other when a stream joins. It is less than
	// clientSilence, since the client hears nothing meanwhile.
	joinTime = 15 * time.Second
	// afterWriteError is how long a client waits for the server's last words when it cannot write any more.
	afterWriteError = 2 * time.Second
)

// Limits of the wire. They are part of the protocol.
const (
	maxFrame   = 4 << 20
	maxPath    = 1 << 20
	maxName    = 255
	maxTarget  = 4096
	maxText    = 2048 // of an error
	maxErrPath = 1024 // a longer one is cut: it is for messages
	maxErrOp   = 64
	maxVersion = 255
	maxXattrs  = 1024
	maxValue   = 64 << 10
	maxItems   = 1024 // of a request that is a list
	maxGFIDs   = 4096 // of a Find
	maxDetails = 512  // of an Examine
	maxGroups  = 65536
	maxNames   = 1 << 14 // of a survey request
	maxRequest = 3 << 20 // a frame of anything but a batch
	maxAnswer  = 512 << 10
	// maxContent is a frame of what comes behind a batch, and of what belongs to no request.
	maxContent     = maxData + 64
	maxBatchXattrs = 4096 // of all operations in a batch
	maxOp          = maxFrame - 64
	maxData        = slave.MaxPiece
	maxNoise       = 64 << 10
)

// What one end allows itself; the other end need not know.
const (
	chunk          = 256 << 10 // requests that are lists are cut into frames of about this size
	answerChunk    = 64 << 10  // and answers
	gather         = 256 << 10 // of frames that may wait to be written together, by the client
	gatherAnswers  = 64 << 10  // and by the server
	keepBuffer     = 320 << 10 // a buffer that one large frame has blown up beyond this is not kept
	maxBatches     = 64        // that a server holds unanswered, over all streams of a session
	batchBudget    = 20 << 20  // bytes of them, without their contents
	requestBudget  = 12 << 20  // bytes of other requests that it holds unanswered, over all streams
	requestCost    = 32 << 10  // that each batch and request counts beyond its own bytes
	partsBudget    = 2 << 20   // bytes of the lists of parts in segments
	answersAtOnce  = 64        // of which a piece is ready and not yet with the sender
	surveysAtOnce  = 4
	findsAtOnce    = 2  // and others that look things up: Groups, Begin
	examinesAtOnce = 8  // of an inspecting session
	surveyedAtOnce = 64 // queries of one survey given to the tree together
	manyEntries    = 2000

	answerBudget = 44 << 20 // bytes that the answers may have that a client waits for, over all streams of a session
	errorCost    = 4 << 10  // of an error in an answer, at most
)
