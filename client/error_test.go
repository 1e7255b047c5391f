package client_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/client"
)

func TestReadError(t *testing.T) {
	cred := held(t, network())
	answer := &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}}
	said := client.ReadError(answer, []byte(`{"error":"access_denied","error_description":"no: `+string(cred.Token)+` opaque-secret"}`), "opaque-secret")
	if said.Code != "access_denied" || said.Description != "no: [redacted] [redacted]" || said.Status != http.StatusForbidden {
		t.Errorf("%+v", said)
	}
	for _, body := range []string{"", "not JSON", `[]`, `{"error":7}`, `{"error":"a","error":"b"}`} {
		if said := client.ReadError(answer, []byte(body)); said.Code != "" || strings.Contains(said.Error(), "a:") {
			t.Errorf("%s: %+v", body, said)
		}
	}
}
