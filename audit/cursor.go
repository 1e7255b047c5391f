package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/kavach-dev/kavach/jcs"
)

const (
	cursorDomain = "kavach audit cursor v1\x00"
	cursorMAC    = 16
)

// A cursor is base64url(seq as 8 bytes ‖ first 16 bytes of
// HMAC-SHA256(secret, domain ‖ seq ‖ binding)): a place in one list of one
// caller.
func makeCursor(secret []byte, q *Query, seq int64) string {
	place := binary.BigEndian.AppendUint64(nil, uint64(seq))
	return jcs.Base64URL(append(place, cursorTag(secret, q, place)...))
}

// readCursor returns the seq after which the list continues.
func readCursor(secrets [][]byte, q *Query) (int64, error) {
	raw, err := jcs.DecodeBase64URL(q.Cursor)
	if err != nil || len(raw) != 8+cursorMAC {
		return 0, ErrCursor
	}
	for _, secret := range secrets {
		if hmac.Equal(raw[8:], cursorTag(secret, q, raw[:8])) {
			return int64(binary.BigEndian.Uint64(raw)), nil
		}
	}
	return 0, ErrCursor
}

func cursorTag(secret []byte, q *Query, place []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(cursorDomain))
	mac.Write(place)
	mac.Write(q.binding())
	return mac.Sum(nil)[:cursorMAC]
}
