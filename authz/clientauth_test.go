package authz_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/authz"
)

// authRequest is one attempt to authenticate.
type authRequest struct {
	header []string // Authorization
	form   url.Values
}

func basic(id, secret string) []string {
	return []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))}
}

func (rt *registryTest) authenticate(a authRequest) reply {
	form := a.form
	if form == nil {
		form = url.Values{"x": {"y"}}
	}
	r := httptest.NewRequest(http.MethodPost, "/oauth/token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header["Authorization"] = a.header
	return serve(func(w http.ResponseWriter, r *http.Request) {
		err := authz.ParseForm(w, r)
		if err == nil {
			var c authz.Authenticated
			if c, err = rt.Authenticate(r.Context(), r); err == nil {
				authz.WriteJSON(w, http.StatusOK, map[string]string{"client": c.Client.ID})
				return
			}
		}
		authz.WriteError(w, err)
	}, r)
}

func TestClientsAuthenticateByTheirOneRegisteredMethod(t *testing.T) {
	rt := newRegistry(t)
	b, bs := rt.client(authz.NewClient{ID: "by-basic", Scopes: []string{"audit:read"}})
	p, ps := rt.client(authz.NewClient{ID: "by-post", Method: authz.MethodPost, Scopes: []string{"audit:read"}})
	n, _ := rt.client(authz.NewClient{ID: "public", Method: authz.MethodNone, RedirectURIs: []string{"https://c.example/cb"}})

	for name, a := range map[string]authRequest{
		"basic":                    {header: basic(b.ID, bs)},
		"basic, lower-case scheme": {header: []string{strings.Replace(basic(b.ID, bs)[0], "Basic", "basic", 1)}},
		"basic with the same client_id in the body": {header: basic(b.ID, bs), form: url.Values{"client_id": {b.ID}}},
		"basic, percent-encoded":                    {header: basic("by%2Dbasic", bs)},
		"post":                                      {form: url.Values{"client_id": {p.ID}, "client_secret": {ps}}},
		"none":                                      {form: url.Values{"client_id": {n.ID}}},
		"none with an empty secret":                 {form: url.Values{"client_id": {n.ID}, "client_secret": {""}}},
	} {
		if got := rt.authenticate(a); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}

	for name, a := range map[string]authRequest{
		"nothing":                               {},
		"unknown client":                        {form: url.Values{"client_id": {"nobody"}}},
		"unknown client, basic":                 {header: basic("nobody", bs)},
		"wrong secret":                          {header: basic(b.ID, ps)},
		"empty secret":                          {header: basic(b.ID, "")},
		"secret without its last byte":          {header: basic(b.ID, bs[:len(bs)-1])},
		"secret and more":                       {header: basic(b.ID, bs+"x")},
		"basic client by post":                  {form: url.Values{"client_id": {b.ID}, "client_secret": {bs}}},
		"post client by basic":                  {header: basic(p.ID, ps)},
		"basic client by nothing":               {form: url.Values{"client_id": {b.ID}}},
		"public client with a secret":           {form: url.Values{"client_id": {n.ID}, "client_secret": {"s"}}},
		"public client by basic":                {header: basic(n.ID, "")},
		"another client_id in the body":         {header: basic(b.ID, bs), form: url.Values{"client_id": {p.ID}}},
		"the stored hash as the secret":         {header: basic(b.ID, b.SecretHash)},
		"an assertion":                          {form: url.Values{"client_id": {b.ID}, "client_assertion": {"a.b.c"}, "client_assertion_type": {"x"}}},
		"bearer":                                {header: []string{"Bearer " + bs}},
		"basic without a colon":                 {header: []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(b.ID))}},
		"basic, not base64":                     {header: []string{"Basic !!!"}},
		"basic, nothing":                        {header: []string{"Basic"}},
		"basic, unpadded tail bits":             {header: []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(b.ID+":"+bs)) + "="}},
		"basic, NUL in the id":                  {header: basic(b.ID+"%00", bs)},
		"basic, NUL in the secret":              {header: basic(b.ID, bs+"%00")},
		"basic, colon in the id":                {header: basic(b.ID+"%3A", bs)},
		"basic, bad escape":                     {header: basic(b.ID+"%zz", bs)},
		"basic, not UTF-8":                      {header: basic(b.ID, "%ff%fe")},
		"basic, raw non-UTF-8":                  {header: basic("\xff", bs)},
		"basic, 10 KB secret":                   {header: basic(b.ID, bs+strings.Repeat("x", 10<<10))},
		"basic, 1 MB":                           {header: basic(b.ID, strings.Repeat("x", 1<<20))},
		"two headers":                           {header: append(basic(b.ID, bs), basic(b.ID, bs)...)},
		"id of 10 KB":                           {form: url.Values{"client_id": {strings.Repeat("a", 10<<10)}}},
		"SQL in the id":                         {form: url.Values{"client_id": {"' OR 1=1--"}}},
		"a person's id":                         {form: url.Values{"client_id": {"usr_X"}}},
		"secret whose first 72 bytes are right": {header: basic(b.ID, bs+strings.Repeat("y", 72))},
	} {
		got := rt.authenticate(a)
		if got.status != http.StatusUnauthorized || got.json(t)["error"] != "invalid_client" {
			t.Errorf("%s: %d %s", name, got.status, got.body)
			continue
		}
		wantRefusal(t, got, http.StatusUnauthorized, "invalid_client")
		if !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s: challenge %q", name, got.header.Get("WWW-Authenticate"))
		}
		if strings.Contains(got.body, bs) || strings.Contains(got.body, ps) {
			t.Errorf("%s: the answer holds a secret", name)
		}
	}

	for name, a := range map[string]authRequest{
		"basic and post":      {header: basic(b.ID, bs), form: url.Values{"client_id": {b.ID}, "client_secret": {bs}}},
		"basic and assertion": {header: basic(b.ID, bs), form: url.Values{"client_assertion": {"a.b.c"}}},
		"post and assertion":  {form: url.Values{"client_id": {p.ID}, "client_secret": {ps}, "client_assertion": {"a.b.c"}}},
	} {
		if got := rt.authenticate(a); got.status != http.StatusBadRequest || got.json(t)["error"] != "invalid_request" {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
}

func TestADisabledClientDoesNotAuthenticate(t *testing.T) {
	rt := newRegistry(t)
	c, secret := rt.client(authz.NewClient{Scopes: []string{"audit:read"}})
	rt.exec(`UPDATE clients SET disabled = 1 WHERE id = $1`, c.ID)
	wantRefusal(t, rt.authenticate(authRequest{header: basic(c.ID, secret)}), http.StatusUnauthorized, "invalid_client")
}

func TestABrokenDatabaseIsNotAnInvalidClient(t *testing.T) {
	rt := newRegistry(t)
	c, secret := rt.client(authz.NewClient{Scopes: []string{"audit:read"}})
	rt.store.away.Store(true)
	wantRefusal(t, rt.authenticate(authRequest{header: basic(c.ID, secret)}), http.StatusServiceUnavailable, "temporarily_unavailable")
	rt.store.away.Store(false)
	if got := rt.authenticate(authRequest{header: basic(c.ID, secret)}); got.status != http.StatusOK {
		t.Errorf("afterwards: %d", got.status)
	}
}

func TestForms(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		if err := authz.ParseForm(w, r); err != nil {
			authz.WriteError(w, err)
			return
		}
		authz.WriteJSON(w, http.StatusOK, r.PostForm)
	}
	send := func(method, contentType, body, query string) reply {
		r := httptest.NewRequest(method, "/oauth/token?"+query, strings.NewReader(body))
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		return serve(handler, r)
	}
	const form = "application/x-www-form-urlencoded"
	if got := send(http.MethodPost, form+"; charset=UTF-8", "a=1&resource=x&resource=y&b=", "a=2&c=3"); got.status != http.StatusOK ||
		got.body != `{"a":["1"],"resource":["x","y"]}`+"\n" {
		t.Errorf("a good form: %d %s", got.status, got.body)
	}
	wantRefusal(t, send(http.MethodGet, form, "", "a=1"), http.StatusMethodNotAllowed, "invalid_request")
	wantRefusal(t, send(http.MethodPost, form, strings.Repeat("a", 65<<10), ""), http.StatusRequestEntityTooLarge, "invalid_request")
	for name, a := range map[string][2]string{
		"JSON":               {"application/json", `{"a":1}`},
		"multipart":          {"multipart/form-data; boundary=x", "--x--"},
		"no type":            {"", "a=1"},
		"another charset":    {form + "; charset=utf-7", "a=1"},
		"another parameter":  {form + "; a=b", "a=1"},
		"twice":              {form, "a=1&a=1"},
		"twice, once empty":  {form, "a=1&a="},
		"bad escape":         {form, "a=%zz"},
		"semicolon":          {form, "a=1;b=2"},
		"not UTF-8":          {form, "a=%ff"},
		"NUL":                {form, "a=%00"},
		"grant type by list": {form, "grant_type=a&grant_type=b"},
	} {
		got := send(http.MethodPost, a[0], a[1], "")
		if got.status != http.StatusBadRequest || got.json(t)["error"] != "invalid_request" {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
}
