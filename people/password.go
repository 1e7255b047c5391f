package people

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// PHC is a hashed password: $argon2id$v=19$m=…,t=…,p=…$salt$hash.
type PHC string

// String hides the hash: it can be guessed at.
func (PHC) String() string { return "[redacted]" }

// GoString hides the hash.
func (PHC) GoString() string { return "[redacted]" }

// LogValue hides the hash.
func (PHC) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// What a new hash costs: more than OWASP's smallest setting (19 MiB, 2 passes),
// about 40 ms of one core.
const (
	argonTime  = 2
	argonLanes = 1
	argonSalt  = 16
	argonKey   = 32
)

// argonMemory is in KiB. Only the tests of this package make it smaller.
var argonMemory uint32 = 32 * 1024

const (
	passwordLeast = 12
	passwordMost  = 256 // characters; more is no password but a load
)

// passwordRules says the rules for people; checkPassword is where they are.
const passwordRules = "At least 12 characters. A few words are easy to remember."

// checkPassword refuses what is guessed first. There are no rules about kinds
// of characters: they make passwords no harder to guess.
func checkPassword(p Secret, name string) error {
	text := norm.NFKC.String(string(p))
	distinct := map[rune]bool{}
	for _, r := range text {
		distinct[r] = true
	}
	switch n := utf8.RuneCountInString(text); {
	case !utf8.ValidString(string(p)):
		return fmt.Errorf("%w: it is not valid UTF-8", ErrPassword)
	case n < passwordLeast:
		return fmt.Errorf("%w: it has fewer than %d characters", ErrPassword, passwordLeast)
	case n > passwordMost:
		return fmt.Errorf("%w: it has more than %d characters", ErrPassword, passwordMost)
	case len(distinct) < 5:
		return fmt.Errorf("%w: it repeats the same few characters", ErrPassword)
	case fold(text) == name:
		return fmt.Errorf("%w: it is the name", ErrPassword)
	}
	return nil
}

// hasher bounds how many passwords are hashed at once: each takes 32 MiB and a
// core, and anybody may ask for one.
type hasher struct {
	slots chan struct{}
	queue chan struct{}
	dummy PHC
}

// hashWait is how long a request waits for its turn before it is told to come
// back.
const hashWait = 8 * time.Second

func newHasher() *hasher {
	n := runtime.GOMAXPROCS(0)
	return &hasher{
		slots: make(chan struct{}, n),
		queue: make(chan struct{}, 128*n),
		// The hash of nothing anybody can type: salt and key are random.
		dummy: encodePHC(argonMemory, argonTime, argonLanes, random(argonSalt), random(argonKey)),
	}
}

// take waits for a slot; the caller gives it back with the function.
func (h *hasher) take(ctx context.Context) (func(), error) {
	select {
	case h.queue <- struct{}{}:
	default:
		return nil, ErrBusy
	}
	defer func() { <-h.queue }()
	timer := time.NewTimer(hashWait)
	defer timer.Stop()
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, ErrBusy
	}
}

func (h *hasher) hash(ctx context.Context, p Secret) (PHC, error) {
	done, err := h.take(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	salt := random(argonSalt)
	return encodePHC(argonMemory, argonTime, argonLanes, salt, derive(p, salt, argonMemory, argonTime, argonLanes, argonKey)), nil
}

// matches says whether p is the password; the caller holds a slot. A hash that
// cannot be read (there is none for an unknown name) costs the same as one
// that can.
func (h *hasher) matches(phc PHC, p Secret) bool {
	m, t, lanes, salt, want, ok := decodePHC(phc)
	if !ok {
		m, t, lanes, salt, want, _ = decodePHC(h.dummy)
	}
	got := derive(p, salt, m, t, lanes, len(want))
	return subtle.ConstantTimeCompare(got, want) == 1 && ok
}

// derive hashes the NFKC form: the same password from another keyboard.
func derive(p Secret, salt []byte, m, t uint32, lanes uint8, n int) []byte {
	return argon2.IDKey([]byte(norm.NFKC.String(string(p))), salt, t, m, lanes, uint32(n))
}

func encodePHC(m, t uint32, lanes uint8, salt, key []byte) PHC {
	b := base64.RawStdEncoding
	return PHC(fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, m, t, lanes, b.EncodeToString(salt), b.EncodeToString(key)))
}

// decodePHC reads a hash, within bounds: a row that somebody edited must not
// be able to eat the memory of the server.
func decodePHC(p PHC) (m, t uint32, lanes uint8, salt, key []byte, ok bool) {
	part := strings.Split(string(p), "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != "v="+strconv.Itoa(argon2.Version) {
		return 0, 0, 0, nil, nil, false
	}
	cost := strings.Split(part[3], ",")
	if len(cost) != 3 {
		return 0, 0, 0, nil, nil, false
	}
	var n [3]uint64
	for i, name := range []string{"m=", "t=", "p="} {
		digits, found := strings.CutPrefix(cost[i], name)
		v, err := strconv.ParseUint(digits, 10, 32)
		if !found || err != nil {
			return 0, 0, 0, nil, nil, false
		}
		n[i] = v
	}
	salt, err1 := base64.RawStdEncoding.Strict().DecodeString(part[4])
	key, err2 := base64.RawStdEncoding.Strict().DecodeString(part[5])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(salt) > 64 || len(key) < 16 || len(key) > 64 ||
		n[0] < 8 || n[0] > 256*1024 || n[1] < 1 || n[1] > 16 || n[2] < 1 || n[2] > 16 {
		return 0, 0, 0, nil, nil, false
	}
	return uint32(n[0]), uint32(n[1]), uint8(n[2]), salt, key, true
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}
