// Package audit keeps the log of everything that was decided: append-only,
// hash-chained, and committed together with the change of state it describes.
//
// What it guarantees:
//
//   - A Change and its entries commit together or not at all ([Log.Commit]).
//   - Nobody who can write the database can edit, drop, insert or reorder a
//     record without [Verify] naming it by kind and seq.
//   - A record is stored and hashed exactly as written, never re-serialised.
//
// The wire format. A record is the JCS (RFC 8785) form of one JSON object, at
// most 8,192 bytes:
//
//	{"action":…,"agent":…,"by":…,"chain":[…],"detail":{…},"evidence":…,
//	 "grant":…,"id":…,"log":…,"observed":…,"path":[…],"prev":…,"reason":…,
//	 "resource":…,"result":…,"seq":…,"sub":…,"time":…,"v":1}
//
//	leaf   = SHA-256(0x00 ‖ record bytes)
//	prev   = base64url(leaf of record seq−1), SHA-256(log id) for seq 0
//
// The mathematics (record.go, sequence.go, verify.go, match.go) takes the time
// as an argument, does no I/O and starts no goroutine. [Log] owns two
// goroutines, the committer and the refusal queue; [Log.Close] ends both.
//
// What a writer does, in full:
//
//	err := committer.Commit(ctx, audit.Change{
//		Effects: []audit.Effect{s.UseCode(hash, now)},       // made by store alone
//		Entries: []audit.Entry{{Action: audit.TokenIssue, Result: audit.Allowed, …}},
//		Else:    &audit.Change{Entries: []audit.Entry{{Action: audit.TokenRefuse, Result: audit.Denied, …}}},
//	})
//	switch {
//	case err == nil:                           // durable: answer
//	case errors.Is(err, audit.ErrConflict):    // a condition was lost, Else is durable: refuse
//	case errors.Is(err, audit.ErrUnrecorded):  // it stands, its record waits: "recorded": false
//	default:                                   // 503 temporarily_unavailable, nothing leaves
//	}
package audit
