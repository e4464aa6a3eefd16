// Package delta ships a changed file as what is new in it. The slave's end holds an old version, the basis, and tells
// the master's end what is in it, block by block (the signature); the master's end reads the new version once, from the
// beginning to the end, and turns it into instructions: take this range of the basis, or take these bytes.
//
// The algorithm is that of A. Tridgell and P. Mackerras, "The rsync algorithm", TR-CS-96-05, Australian National
// University, 1996: a cheap sum that rolls along the new file a byte at a time finds candidates, a strong one proves
// them, so that content is found wherever it moved to. The package does no I/O of its own but through the readers and
// writers given to it, knows nothing of wire or staging, and imports nothing of ours.
//
// # The two sums
//
// Both depend on a Key, random for each session, that who writes into the files does not know.
//
// The weak sum is the block as a polynomial modulo the prime 2^61-1, at a secret point. Two different blocks of n bytes
// have equal sums for at most n of some 2^59 points. rsync's sum of 32 bits has two troubles that this one does not
// have. By chance alone a byte of new data meets it with probability (blocks / 2^32), and each time a whole block is
// hashed in vain: of a basis of S bytes, S / 2^32 bytes hashed for every byte read, which for 1 TiB is 256. And anyone
// can write a file in which it is met at every byte; then the strong hash runs over a block for each of them, which is
// hours for one file of 1 GiB. The modulus is a Mersenne prime, so that rolling costs one multiplication and no
// division. Of the sum the lowest 40 bits count: by chance no more than a byte is hashed for every byte read, whatever
// the size of the basis, and three bytes less a block go over the wire.
//
// The strong sum is GMAC (AES-128-GCM over no text and the block as additional data), the first 12 bytes of its tag, with
// a nonce that is always the same. As a signature over a wire that would be a misuse, for tags under one nonce give the
// key away; here the tags are seen only by both ends, who have the key anyway, and what is left is GHASH, a polynomial
// over GF(2^128) at a secret point. Two different blocks of n bytes are equal under it with probability of about n/16 /
// 2^96 at most, whoever chose them, as long as the key was not known to him. With AES and carry-less multiplication in
// hardware it is four to five times as quick as SHA-256 with SHA instructions (measured: 7 to 9 against 1.9 GB/s), and
// on the quick path it is all there is to do. A slave who means ill can claim to have what it has not; it only ruins
// its own copy, which it can do anyway.
//
// # Block sizes
//
// A signature of 17 bytes a block for a file of S bytes costs 17*S/B, and each place that changed costs about B, so the
// best B grows with the square root of S. BlockSize takes the power of two from sqrt(2*S) on, which puts the two in
// balance at some four scattered places, within these bounds: 2 KiB, below which a signature is not small against the
// file; a multiple of 4 KiB beyond the smallest files, so that blocks in place can be shared by the file system
// (reflink); 128 KiB, for beyond that it is not the signature (a 5000th of the file) that hurts. Only where more than
// MaxBlocks would be needed, from 128 GiB on, do blocks grow further, to 8 MiB. What a file has beyond 8 TiB has no
// signature and is sent.
//
//	size        block     signature
//	1 MiB       2 KiB     8.5 KiB
//	16 MiB      8 KiB     34 KiB
//	1 GiB       64 KiB    272 KiB
//	100 GiB     128 KiB   13.3 MiB
//	1 TiB       1 MiB     17 MiB
//
// Of these 17 bytes 12 are the strong sum. It can come alone, and the other 5 later or never (Which): the weak sum is two
// thirds of the work at the slave, and only what moved needs it.
//
// # Holes
//
// The new file comes as pieces of data with holes between them (Source). A hole is not produced, and no instruction
// reaches across one. For finding matches alone, a hole is read as the zeros it stands for, as far as the block reaches
// into which data begins or ends, so that a sparse file of many small extents is found in place as well; what is then
// taken from the basis are the parts of the block that are data. In the basis too a hole reads as zeros. Blocks wholly
// within a hole can be left out of the signature (Signer.Extent).
//
// # Memory
//
// The signer holds one buffer of 256 KiB or one block, and a batch of sums. An Index holds 24 bytes a block, in pieces
// as they arrive, and 16 to 28 more for finding them, less where there are many: at MaxBlocks 36 MiB in all. An Encoder
// holds 512 KiB and two blocks. Nothing is allocated by what a peer announces, only by what it sent.
//
// # Time
//
// Content in place is read at the speed of the strong hash: the block that follows the last one found is tried first,
// then the one at the same offset. It can be read while the signature is still coming (Growing), so that the two ends
// work at the same time. New content is read at the speed of the rolling sum, and of one bit looked up in a
// filter for each byte. Whatever the content, each byte is hashed a fixed number of times but for weak sums that are
// equal by chance; finding a block takes at most O(log blocks), also for a signature that is made to be slow. Only a
// slave that means ill, for it has the key, can have a block hashed in vain at every byte of a file that it foresees;
// it delays its own session, as it could by not answering.
//
// # Concurrency, errors
//
// A sealed Index can be used by many Encoders at once; everything else has one user at a time. Errors of the readers
// given come through wrapped; an Encoder that failed stays failed. What the peer sent wrongly is ErrMalformed.
//
// The instructions make the new file out of the basis that was signed. Who lets the basis change meanwhile gets neither
// the one nor the other, so it must be a file that nobody writes to, or the result must be checked.
package delta
