package sshconn

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/ssh"
)

// revocationMagic begins a key revocation list (KRL) of OpenSSH's; the format is its PROTOCOL.krl.
const revocationMagic = "SSHKRL\n\x00"

// Sections of a list, and of its section on certificates.
const (
	sectionCertificates = 1
	sectionKeys         = 2
	sectionSHA1         = 3
	sectionSignature    = 4
	sectionSHA256       = 5
	sectionExtension    = 255

	certSerials   = 0x20
	certRange     = 0x21
	certBitmap    = 0x22
	certKeyIDs    = 0x23
	certExtension = 0x39
)

var errShortList = errors.New("the key revocation list is cut off or damaged")

// revocationList is a KRL. It is read only. All three kinds of entries count, whichever the
// operator used.
type revocationList struct {
	keys   map[string]bool // explicit keys, by wire form
	sha1   map[string]bool
	sha256 map[string]bool
	certs  []revokedCerts
}

// revokedCerts are certificates of one authority, or of any where authority is empty.
type revokedCerts struct {
	authority []byte
	serials   map[uint64]bool
	ranges    [][2]uint64 // both ends included
	bitmaps   []serialBitmap
	keyIDs    map[string]bool
}

// serialBitmap has a bit for each serial from first on.
type serialBitmap struct {
	first uint64
	bits  *big.Int
}

// fields reads what SSH encodes. The first field that is not there makes it fail, and all that follow.
type fields struct {
	rest []byte
	err  error
}

// bytes takes n bytes, which still share the text; nil after an error. The others take one value
// each: big-endian numbers, and strings with their length in front.
func (f *fields) bytes(n int) []byte {
	if f.err != nil || n < 0 || n > len(f.rest) {
		f.err, f.rest = errShortList, nil
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) byte() byte {
	if b := f.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) uint64() uint64 {
	if b := f.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (f *fields) string() []byte {
	if b := f.bytes(4); b != nil {
		return f.bytes(int(binary.BigEndian.Uint32(b)))
	}
	return nil
}

// more is false after an error, so loops end.
func (f *fields) more() bool { return f.err == nil && len(f.rest) > 0 }

// strings gives the rest, a sequence of strings, as a set.
func (f *fields) strings() map[string]bool {
	set := map[string]bool{}
	for f.more() {
		set[string(f.string())] = true
	}
	return set
}

// parseRevocationList reads a list. What it does not know refuses the list: it might revoke the key that is offered.
func parseRevocationList(text []byte) (*revocationList, error) {
	f := &fields{rest: text[len(revocationMagic):]}
	if version := f.bytes(4); version != nil && binary.BigEndian.Uint32(version) != 1 {
		return nil, errors.New("the key revocation list has an unknown version")
	}
	f.bytes(3 * 8) // number, date, flags
	f.string()     // reserved
	f.string()     // comment
	l := &revocationList{keys: map[string]bool{}, sha1: map[string]bool{}, sha256: map[string]bool{}}
	for f.more() {
		kind := f.byte()
		if err := l.section(kind, &fields{rest: f.string(), err: f.err}); err != nil {
			return nil, err
		}
	}
	return l, f.err
}

// section takes one section. A kind that is not known is an error.
func (l *revocationList) section(kind byte, f *fields) error {
	switch kind {
	case sectionCertificates:
		return l.certificates(f)
	case sectionKeys:
		add(l.keys, f.strings())
	case sectionSHA1:
		add(l.sha1, f.strings())
	case sectionSHA256:
		add(l.sha256, f.strings())
	case sectionSignature: // of the list; OpenSSH ignores it, too
	case sectionExtension:
		return extension(f)
	default:
		return fmt.Errorf("the key revocation list has a section of unknown kind %d", kind)
	}
	return f.err
}

// add puts one set into another.
func add(to, from map[string]bool) {
	for s := range from {
		to[s] = true
	}
}

// extension refuses one that must be understood.
func extension(f *fields) error {
	name, critical := f.string(), f.byte()
	if f.err == nil && critical != 0 {
		return fmt.Errorf("the key revocation list needs the unknown extension %q", clean(string(name)))
	}
	return f.err
}

// certificates takes the section on certificates of one authority.
func (l *revocationList) certificates(f *fields) error {
	c := revokedCerts{authority: f.string(), serials: map[uint64]bool{}, keyIDs: map[string]bool{}}
	f.string() // reserved
	for f.more() {
		kind := f.byte()
		if err := c.section(kind, &fields{rest: f.string(), err: f.err}); err != nil {
			return err
		}
	}
	l.certs = append(l.certs, c)
	return f.err
}

// section takes one of its parts.
func (c *revokedCerts) section(kind byte, f *fields) error {
	switch kind {
	case certSerials:
		for f.more() {
			c.serials[f.uint64()] = true
		}
	case certRange:
		c.ranges = append(c.ranges, [2]uint64{f.uint64(), f.uint64()})
	case certBitmap:
		c.bitmaps = append(c.bitmaps, serialBitmap{f.uint64(), new(big.Int).SetBytes(f.string())})
	case certKeyIDs:
		add(c.keyIDs, f.strings())
	case certExtension:
		return extension(f)
	default:
		return fmt.Errorf("the key revocation list has certificates by an unknown kind %#x", kind)
	}
	return f.err
}

// hasKey tells whether a plain key is revoked.
func (l *revocationList) hasKey(key ssh.PublicKey) bool {
	wire := key.Marshal()
	// The digests identify keys that somebody listed; that SHA-1 is broken does not let anybody leave the list.
	old, digest := sha1.Sum(wire), sha256.Sum256(wire)
	return l.keys[string(wire)] || l.sha1[string(old[:])] || l.sha256[string(digest[:])]
}

// hasCertificate tells whether a certificate itself is revoked; its keys are asked for with hasKey.
func (l *revocationList) hasCertificate(cert *ssh.Certificate) bool {
	for _, c := range l.certs {
		ofAuthority := len(c.authority) == 0 || bytes.Equal(c.authority, cert.SignatureKey.Marshal())
		if ofAuthority && (c.keyIDs[cert.KeyId] || cert.Serial != 0 && c.hasSerial(cert.Serial)) {
			return true
		}
	}
	return false
}

// hasSerial is never asked for serial 0, which means that the certificate has none.
func (c *revokedCerts) hasSerial(serial uint64) bool {
	if c.serials[serial] {
		return true
	}
	for _, r := range c.ranges {
		if r[0] <= serial && serial <= r[1] {
			return true
		}
	}
	for _, b := range c.bitmaps {
		if at := serial - b.first; serial >= b.first && at < uint64(b.bits.BitLen()) && b.bits.Bit(int(at)) == 1 {
			return true
		}
	}
	return false
}
