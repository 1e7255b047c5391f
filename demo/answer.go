package demo

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"regexp"
)

// readOutcome reads what an answer says: the status, the challenge that speaks
// of an error, else the error of the body.
func readOutcome(resp *http.Response, body []byte) Outcome {
	o := Outcome{Status: resp.StatusCode}
	if resp.StatusCode < http.StatusBadRequest {
		kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		o.Note = fmt.Sprintf("%s, %d bytes", kind, len(body))
		return o
	}
	for _, challenge := range resp.Header.Values("WWW-Authenticate") {
		if m := challenged.FindStringSubmatch(challenge); m != nil {
			o.Challenge, o.Error = m[1], m[2]
			return o
		}
	}
	var said struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(body, &said) == nil {
		o.Error, o.Note = said.Error, said.Description
	}
	return o
}

// challenged finds the scheme and the error of a challenge; one stands in each
// header line.
var challenged = regexp.MustCompile(`^(Bearer|DPoP) (?:.*[ ,])?error="([^"]*)"`)
