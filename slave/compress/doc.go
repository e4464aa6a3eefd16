// Package compress compresses one byte stream, such as one SSH channel, where that gets the bytes out sooner. A Writer
// turns what is written to it into chunks, and a Reader turns the chunks back. Each direction of a stream has a Writer
// at one end and a Reader at the other; the format is the same whether anything is compressed or not, so the two ends
// need not agree on a Mode.
//
// It owns the format of the chunks and the memory of the compressor. It never owns the streams below, never starts a
// goroutine, and never holds bytes back: when Write returns, everything is on the underlying writer.
//
// # Format
//
// A stream is a sequence of chunks, and ends between two of them. Numbers are big-endian.
//
//	4 bytes   bit 31: packed; the other bits: length of the payload, 1 byte to 1 MiB
//	4 bytes   only if packed: what the payload decodes to, 1 byte to 1 MiB
//	payload   the bytes themselves or, if packed, whole blocks of zstd
//
// The payloads of all packed chunks of a stream, put together, are a zstd stream without an end, with a window of
// 256 KiB. So every packed chunk uses the history of those before it: writes of 256 KiB become smaller by 3 percent,
// writes of 4 KiB by a third, at the cost of the window in memory. The bytes of raw chunks are no part of that history.
//
// # Memory
//
// The first packed chunk of a direction allocates 1.2 MiB at its Writer and 0.8 MiB at its Reader, and no more
// comes after that, whatever the chunks announce; see TestMemory. A stream that never packs holds buffers of at most
// 128 KiB at the Writer and 32 KiB at the Reader.
package compress

import "errors"

// ErrMalformed means that what arrived is not what a Writer makes. It is wrapped with what was wrong.
var ErrMalformed = errors.New("malformed compressed stream")

const (
	packedBit  = 1 << 31
	headerSize = 4 // of each of the two numbers before a payload

	// maxChunk bounds the payload of a chunk, and what it decodes to. It is part of the format.
	maxChunk = 1 << 20
	// window is how far back a packed chunk may refer. It is part of the format. Measured on Go source in pieces, the
	// ratio grows by another percent with each doubling beyond, and so does the memory.
	window = 256 << 10

	// piece is how much a Writer puts into a chunk at most: a block of zstd, so that the link is busy with one chunk
	// while the next is being packed.
	piece = 128 << 10
	// tooSmall is what is not worth packing.
	tooSmall = 512
	// readAhead spares the underlying reader the small reads of headers.
	readAhead = 32 << 10
)
