package xtime

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
)

// UUID names a volume for ever (RFC 4122, version 4).
type UUID [16]byte

// NewUUID returns a random UUID.
func NewUUID() UUID {
	var u UUID
	rand.Read(u[:])
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return u
}

// ParseUUID reads the 36-character form that String writes.
func ParseUUID(s string) (UUID, error) {
	b, err := parse16(s)
	if err != nil {
		return UUID{}, fmt.Errorf("volume uuid %q: %w", s, err)
	}
	return UUID(b), nil
}

// String gives the lower-case 8-4-4-4-12 form.
func (u UUID) String() string { return dashed(u) }

// MarshalText and UnmarshalText use the form of String.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (u *UUID) UnmarshalText(b []byte) (err error) {
	*u, err = ParseUUID(string(b))
	return err
}

// IsZero tells whether u was never set.
func (u UUID) IsZero() bool { return u == UUID{} }

// GFID identifies an inode of the master for as long as that inode lives. The zero GFID means "none".
type GFID [16]byte

// ParseGFID reads the form that String writes.
func ParseGFID(s string) (GFID, error) {
	b, err := parse16(s)
	if err != nil {
		return GFID{}, fmt.Errorf("gfid %q: %w", s, err)
	}
	return GFID(b), nil
}

// String gives the 8-4-4-4-12 form, as GlusterFS prints GFIDs.
func (g GFID) String() string { return dashed(g) }

// MarshalText uses the form of String.
func (g GFID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (g *GFID) UnmarshalText(b []byte) (err error) {
	*g, err = ParseGFID(string(b))
	return err
}

// IsZero tells whether g is "none".
func (g GFID) IsZero() bool { return g == GFID{} }

func dashed(b [16]byte) string {
	s := hex.EncodeToString(b[:])
	return strings.Join([]string{s[:8], s[8:12], s[12:16], s[16:20], s[20:]}, "-")
}

func parse16(s string) (out [16]byte, err error) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return out, fmt.Errorf("want 8-4-4-4-12 hexadecimal digits")
	}
	_, err = hex.Decode(out[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:]))
	return out, err
}
