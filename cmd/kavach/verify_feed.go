package main

import (
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/wellknown"
)

// feed reads the revocation feed of --revocations. A stale one says nothing: it
// would be believed.
func (c *verifyCmd) feed(w *world, keys []wellknown.Key, now time.Time) (*delegation.Feed, error) {
	text, err := w.readLine(c.Feed)
	if err != nil {
		return nil, err
	}
	feed, err := delegation.VerifyFeed(text, c.Issuer, func(kid string) (crypto.PublicKey, bool) {
		for _, k := range keys {
			if k.KID == kid {
				return k.Public, true
			}
		}
		return nil, false
	}, now)
	if err == nil && !feed.Fresh(now) {
		err = errors.New("it is stale since " + when(feed.Expires()))
	}
	if err != nil {
		return nil, withHint(fmt.Errorf("reading the feed %s: %w", c.Feed, err), "save it from ISSUER/revocations, at most a minute before")
	}
	return feed, nil
}
