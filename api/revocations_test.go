package api_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

// End implements api.Revoker: everybody owns "mine".
func (w *world) End(_ context.Context, by authz.Actor, person authz.Holder, what authz.Ending) (bool, error) {
	if by.Via != "api" || by.Sub != person.ID {
		return false, fmt.Errorf("%+v", by)
	}
	switch {
	case what == authz.Ending{}:
		return false, fmt.Errorf("%w: name something", authz.ErrInvalid)
	case what.Grant == "broken":
		return false, errors.New("database secret")
	case what.Grant != "mine" && person.Role != "operator":
		return false, authz.ErrNotFound
	}
	return what.Grant != "unrecorded", nil
}

// Lift implements api.Revoker.
func (w *world) Lift(_ context.Context, _ authz.Actor, kind authz.RevocationKind, value string) error {
	switch {
	case kind != authz.RevokeKey:
		return fmt.Errorf("%w: a key", authz.ErrInvalid)
	case value != "revoked":
		return authz.ErrNotFound
	}
	return nil
}

// Revocations implements api.Revoker: there are 201, the newest 301.
func (w *world) Revocations(_ context.Context, before int64, limit int) ([]authz.Revocation, error) {
	var list []authz.Revocation
	for seq := int64(301); seq > 100 && len(list) < limit; seq-- {
		if before == 0 || seq < before {
			list = append(list, authz.Revocation{Seq: seq, Kind: authz.RevokeKey, Value: "k", At: time.Unix(1_800_000_000, 0)})
		}
	}
	return list, nil
}

func TestRevocations(t *testing.T) {
	w := newWorld(t)
	const path = "/api/v1/revocations"
	actions := map[string]string{"POST": audit.Revoke, "GET": audit.RevokeRead, "DELETE": audit.RevokeLift}
	for _, test := range []struct {
		sub, method, path, body string
		status                  int
		says, reason            string
	}{
		{"alice", "POST", path, `{"grant":"mine"}`, 200, `{"recorded":true,"revoked":true}`, ""},
		{"agent-of-alice", "POST", path, `{"grant":"other"}`, 503, "", ""}, // our fake wants to know who it is
		{"alice", "POST", path, `{"grant":"other"}`, 404, "not_found", ""},
		{"root", "POST", path, `{"grant":"other","issued":true}`, 200, `"recorded":true`, ""},
		{"root", "POST", path, `{"grant":"unrecorded"}`, 200, `"recorded":false`, ""},
		{"root", "POST", path, `{"key":"k"}`, 200, `"revoked":true`, ""},
		{"root", "POST", path, `{"client":"c"}`, 200, `"revoked":true`, ""},
		{"root", "POST", path, `{"issued":true}`, 200, `"revoked":true`, ""},
		{"gone", "POST", path, `{"grant":"mine"}`, 403, "access_denied", "access_denied"},
		{"alice", "POST", path, `{}`, 400, "name something", "invalid_request"},
		{"alice", "POST", path, `{"grant":""}`, 400, "the members are", "invalid_request"},
		{"alice", "POST", path, `{"grant":"mine","grant":"mine"}`, 400, "invalid_request", "invalid_request"},
		{"alice", "POST", path, `{"token":"t"}`, 400, "the members are", "invalid_request"},
		{"alice", "POST", path, `{"issued":"yes"}`, 400, "the members are", "invalid_request"},
		{"alice", "POST", path, `{"grant":"broken"}`, 503, "temporarily_unavailable", ""},
		{"alice", "GET", path, ``, 403, "access_denied", "access_denied"},
		{"root", "GET", path, ``, 200, `"next":102`, ""},
		{"root", "GET", path + "?before=102", ``, 200, `"seq":101`, ""},
		{"root", "GET", path + "?before=x", ``, 400, "before", "invalid_request"},
		{"root", "GET", path + "?after=1", ``, 400, "before", "invalid_request"},
		{"alice", "DELETE", path + "/key/revoked", ``, 403, "access_denied", "access_denied"},
		{"root", "DELETE", path + "/key/revoked", ``, 200, `"lifted":true`, ""},
		{"root", "DELETE", path + "/key/other", ``, 404, "not_found", ""},
		{"root", "DELETE", path + "/gid/revoked", ``, 400, "a key", "invalid_request"},
		{"root", "PUT", path, ``, 405, "GET, POST", ""},
	} {
		got := w.request(test.method, test.path, w.token(test.sub, "agents:manage"), test.body)
		if got.status != test.status || !strings.Contains(got.body, test.says) {
			t.Errorf("%s: %s %s %s: %d %s", test.sub, test.method, test.path, test.body, got.status, got.body)
		}
		if test.reason != "" {
			if e := w.last(); e.Result != audit.Denied || e.Action != actions[test.method] || e.Reason != test.reason || e.Sub != test.sub {
				t.Errorf("%s: %s %s %s: record %+v", test.sub, test.method, test.path, test.body, e)
			}
		}
	}
	if got := w.request("POST", path, w.token("root", "kavach:audit"), `{"issued":true}`); got.status != 403 {
		t.Errorf("without the scope: %d", got.status)
	}
	if got := w.request("POST", path, "", `{"issued":true}`); got.status != 401 {
		t.Errorf("without a token: %d", got.status)
	}
}
