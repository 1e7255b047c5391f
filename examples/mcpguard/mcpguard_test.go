package mcpguard

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestRead: what the library behind might read as another call is not read at
// all.
func TestRead(t *testing.T) {
	for body, good := range map[string]bool{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_page","arguments":{}}}`:                      true,
		`{"method":"ping","method":"tools/call"}`:                                                                          false,
		`{"method":"ping","Method":"tools/call"}`:                                                                          false,
		`{"method":"tools/call","params":{"name":"read_page"},"param\u017f":{"name":"write_page"}}`:                        false,
		`{"method":"tools/call","params":{"name":"read_page","NAME":"write_page"}}`:                                        false,
		`{"method":"tools/call","params":{"name":"read_page","arguments":{"page":"plans"},"argument\u017f":{"page":"x"}}}`: false,
		`[{"method":"tools/call"}]`: false,
		``:                          false,
		`{"method":"ping"} {}`:      false,
	} {
		r := httptest.NewRequest(http.MethodPost, "/mcp", strings.NewReader(body))
		if _, err := read(httptest.NewRecorder(), r); (err == nil) != good {
			t.Errorf("%s: %v", body, err)
		}
	}
}
