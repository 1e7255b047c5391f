package authz

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxForm is the body limit of every endpoint here (§6).
const maxForm = 64 << 10

// Error is an OAuth error as it is answered: RFC name, status, and a short
// description that was written for the caller. It never holds internal text.
type Error struct {
	Status      int    // HTTP status
	Code        string // RFC 6749 §5.2 and its registry
	Description string // short, for people; never from an internal error
	Challenge   string // WWW-Authenticate, if any
	RetryAfter  int    // seconds, if any
	Nonce       string // DPoP-Nonce, if any
}

// Error returns the code and the description.
func (e *Error) Error() string {
	if e.Description == "" {
		return "authz: " + e.Code
	}
	return "authz: " + e.Code + ": " + e.Description
}

// OAuthError returns what may be told of the error to the caller.
func (e *Error) OAuthError() (code, description string) { return e.Code, e.Description }

func badRequest(code, description string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: code, Description: description}
}

// oauthError is the one map from errors to answers. Whatever is not an *Error
// is a failure of ours (database, log): the caller learns that it may try
// again, and nothing else. Never invalid_client: clients throw their
// registration away on that.
func oauthError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{
		Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable",
		Description: "try again in a moment", RetryAfter: 1,
	}
}

// WriteError answers with an OAuth error (RFC 6749 §5.2).
func WriteError(w http.ResponseWriter, err error) {
	e := oauthError(err)
	h := w.Header()
	if e.Challenge != "" {
		h.Set("WWW-Authenticate", e.Challenge)
	}
	if e.Nonce != "" {
		h.Set("DPoP-Nonce", e.Nonce)
	}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	body := struct {
		Error       string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{e.Code, describe(e.Description)}
	WriteJSON(w, e.Status, body)
}

// describe keeps to the characters of RFC 6749 §5.2: %x20-21 / %x23-5B /
// %x5D-7E.
func describe(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"' || r == '\\':
			return '\''
		case r < 0x20 || r > 0x7e:
			return '?'
		}
		return r
	}, text)
}

// WriteJSON answers with JSON that no cache keeps.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache") // RFC 6749 §5.1
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// The status is out: an error here is a caller that went away.
	_ = json.NewEncoder(w).Encode(v)
}

// readBody reads at most the limit.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, &Error{Status: http.StatusRequestEntityTooLarge, Code: "invalid_request", Description: "the body is larger than 64 KiB"}
		}
		return nil, badRequest("invalid_request", "the body could not be read")
	}
	return body, nil
}

// contentType checks the media type; its only parameter may be charset=utf-8.
func contentType(r *http.Request, want string) bool {
	values := r.Header.Values("Content-Type")
	if len(values) != 1 || r.Header.Get("Content-Encoding") != "" {
		return false
	}
	got, params, err := mime.ParseMediaType(values[0])
	if err != nil || got != want {
		return false
	}
	for name, value := range params {
		if name != "charset" || !strings.EqualFold(value, "utf-8") {
			return false
		}
	}
	return true
}

func methodNotAllowed(w http.ResponseWriter, allow string) *Error {
	w.Header().Set("Allow", allow)
	return &Error{Status: http.StatusMethodNotAllowed, Code: "invalid_request", Description: "use " + allow}
}

// ParseForm reads the form of a POST into r.PostForm and r.Form. Only the body
// counts: what stands in the query is no parameter. A parameter sent twice is
// refused (RFC 6749 §3.2), except resource (RFC 8707 §2) and audience; one
// without a value was not sent. Errors are *Error.
func ParseForm(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPost {
		return methodNotAllowed(w, "POST")
	}
	if !contentType(r, "application/x-www-form-urlencoded") {
		return badRequest("invalid_request", "Content-Type must be application/x-www-form-urlencoded")
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return badRequest("invalid_request", "the body is not a form")
	}
	for name, values := range form {
		for _, v := range values {
			if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
				return badRequest("invalid_request", "a parameter is not UTF-8 text")
			}
		}
		if len(values) > 1 && name != "resource" && name != "audience" {
			return badRequest("invalid_request", "a parameter was sent twice")
		}
		// RFC 6749 §3.2: "Parameters sent without a value MUST be treated as if
		// they were omitted".
		form[name] = slices.DeleteFunc(values, func(v string) bool { return v == "" })
		if len(form[name]) == 0 {
			delete(form, name)
		}
	}
	r.PostForm, r.Form = form, form
	return nil
}

// allowCORS lets scripts of every origin call an endpoint that takes no
// cookies (§6), errors included, and answers preflights.
func allowCORS(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", "WWW-Authenticate, DPoP-Nonce, Retry-After")
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, DPoP, MCP-Protocol-Version")
			h.Set("Access-Control-Max-Age", "600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}
