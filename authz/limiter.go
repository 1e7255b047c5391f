package authz

import (
	"math"
	"sync"
	"time"
)

const (
	limiterKeys     = 4096
	limiterOverflow = "overflow"
)

// limiter gives each key a bucket of perMinute tokens that fills up again in a
// minute. It keeps at most 4,096 keys; further ones share one bucket, so that
// an attacker with many addresses slows down other strangers, never known ones.
type limiter struct {
	perMinute int

	mu      sync.Mutex // guards buckets
	buckets map[string]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// take takes a token. Without one it says after how many seconds to come back.
func (l *limiter) take(key string, now time.Time) (left, wait int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buckets == nil {
		l.buckets = map[string]bucket{}
	}
	b, known := l.buckets[key]
	if !known {
		if len(l.buckets) >= limiterKeys {
			l.forget(now)
		}
		if len(l.buckets) >= limiterKeys {
			key = limiterOverflow
			b, known = l.buckets[key]
		}
	}
	size, perSecond := float64(l.perMinute), float64(l.perMinute)/60
	if !known {
		b = bucket{tokens: size, at: now}
	}
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.tokens = min(size, b.tokens+passed*perSecond)
	}
	b.at = now
	if ok = b.tokens >= 1; ok {
		b.tokens--
	} else {
		wait = max(1, int(math.Ceil((1-b.tokens)/perSecond)))
	}
	l.buckets[key] = b
	return int(b.tokens), wait, ok
}

// forget drops buckets that are full again.
func (l *limiter) forget(now time.Time) {
	for key, b := range l.buckets {
		if now.Sub(b.at) >= time.Minute {
			delete(l.buckets, key)
		}
	}
}
