package people

import (
	"strings"
	"testing"
)

func TestPasswordHash(t *testing.T) {
	cheap := argonMemory
	argonMemory = fullMemory
	defer func() { argonMemory = cheap }()
	h := newHasher()
	phc, err := h.hash(t.Context(), "a calm blue heron")
	if err != nil {
		t.Fatal(err)
	}
	// OWASP's least is m=19456, t=2, p=1.
	if !strings.HasPrefix(string(phc), "$argon2id$v=19$m=32768,t=2,p=1$") || !strings.HasPrefix(string(h.dummy), "$argon2id$v=19$m=32768,t=2,p=1$") {
		t.Fatalf("hash %q", string(phc))
	}
	if !h.matches(phc, "a calm blue heron") || h.matches(phc, "a calm blue heroN") || h.matches(phc, "") {
		t.Fatal("the hash does not tell passwords apart")
	}
	if again, _ := h.hash(t.Context(), "a calm blue heron"); again == phc {
		t.Fatal("two hashes have one salt")
	}
	// There is no password for nobody.
	if h.matches("", "a calm blue heron") || h.matches(PHC(h.dummy), "") {
		t.Fatal("somebody signed in as nobody")
	}
}

func TestForeignHashes(t *testing.T) {
	h := newHasher()
	const salt, key = "c2FsdHNhbHQ", "a2V5a2V5a2V5a2V5a2V5a2V5"
	if _, _, _, _, _, ok := decodePHC("$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + key); !ok {
		t.Fatal("a good hash is refused: the rest proves nothing")
	}
	for _, p := range []PHC{
		"", "x", "$argon2i$v=19$m=64,t=1,p=1$" + salt + "$" + key, "$argon2id$v=16$m=64,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=4294967295,t=1,p=1$" + salt + "$" + key, "$argon2id$v=19$m=64,t=1000,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1,p=0$" + salt + "$" + key, "$argon2id$v=19$m=64,t=1,p=257$" + salt + "$" + key,
		"$argon2id$v=19$m=64,t=1$" + salt + "$" + key, "$argon2id$v=19$m=64,t=1,p=1$" + salt + "$", "$argon2id$v=19$m=64,t=1,p=1$$" + key,
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + key + "=", "$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + key + "$", "$2b$12$abcdefghijklmnopqrstuv",
	} {
		if h.matches(p, "") {
			t.Errorf("%q lets somebody in", string(p))
		}
	}
}

func TestHasherTurnsAwayInsteadOfPilingUp(t *testing.T) {
	h := newHasher()
	for range cap(h.slots) {
		if _, err := h.take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for range cap(h.queue) {
		h.queue <- struct{}{}
	}
	if _, err := h.take(t.Context()); err != ErrBusy {
		t.Fatalf("with every place taken: %v", err)
	}
}
