// Command handler is a document host, an ordinary net/http program, that lets
// agents do with a document what their token says and nothing else. It shares
// nothing with kavach but kavach's public keys.
//
//	kavach resource add http://127.0.0.1:9000 --dev --name Documents --kavach-aware \
//	  --scope 'docs:read=Read documents' --scope 'docs:comment=Comment on documents'
//	go run ./handler
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/wellknown"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "address of the document host")
	resource := flag.String("resource", "http://127.0.0.1:9000", "what tokens for it name as aud")
	issuer := flag.String("issuer", "http://127.0.0.1:8420", "the kavach that issues them")
	flag.Parse()

	// The keys are fetched, cached and refreshed in the background. When kavach
	// is away the document host goes on.
	keys := guard.NewJWKS(guard.JWKSConfig{Issuer: *issuer, URL: *issuer + "/.well-known/jwks.json"})
	defer keys.Close()
	// So is what was revoked, every five seconds. A minute after kavach went away
	// nobody knows that any more: documents are still read, and not written on.
	feed := guard.NewFeed(guard.FeedConfig{Issuer: *issuer, Keys: keys})
	defer feed.Close()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.SetFlags(0)
	log.Printf("ready %s", *resource)
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, Handler: handler(*issuer, *resource, keys, feed)}
	log.Fatal(s.Serve(listener))
}

// The documents, by name.
var documents = map[string]string{
	"charter": "We the people who answer for the agents.\n",
	"minutes": strings.Repeat("It was said that, and answered that.\n", 1000),
}

func handler(issuer, resource string, keys guard.Verifier, feed guard.Revocations) http.Handler {
	protect := guard.Require(guard.Config{
		Resource:    resource,
		Verifier:    keys,
		Revocations: feed,
		Baseline:    []string{"docs:read"},
		NeedOf:      need,
		// A chain of delegations may be used for writing, too, with a proof of
		// the holder's key over method and URL. TLS has to end here: such a proof
		// does not cover the body.
		DPoPForWrites: true,
		// A token may be good for so many calls; one process counts for itself.
		Counters: guard.NewCounters(guard.CountersConfig{}),
	})
	docs := http.NewServeMux()
	docs.HandleFunc("GET /docs/{name}", read)
	docs.HandleFunc("POST /docs/{name}/comments", comment)

	mux := http.NewServeMux()
	mux.Handle("/docs/", protect(docs))
	// Where a client that was refused finds out whom to ask for a token.
	mux.Handle("/.well-known/", wellknown.Handler(wellknown.Config{
		Resources: func(context.Context) ([]wellknown.ResourceMetadata, error) {
			return []wellknown.ResourceMetadata{{
				Resource: resource, AuthorizationServers: []string{issuer},
				ScopesSupported: []string{"docs:comment", "docs:read"},
			}}, nil
		},
	}))
	return mux
}

var route = regexp.MustCompile(`^/docs/([a-z]{1,32})(/comments)?$`)

// need says what a request needs of the token, in every dimension that a token
// can be restricted in. What is left out here and not declared for later, a
// restricted token is refused for: forgetting something never opens anything.
func need(r *http.Request) (guard.Need, error) {
	at := route.FindStringSubmatch(r.URL.Path)
	if at == nil {
		return guard.Need{}, fmt.Errorf("there is nothing at %s", r.URL.Path)
	}
	n := guard.Need{Request: delegation.Request{
		Tool:    delegation.None[delegation.Call](), // this is no tool
		Network: delegation.None[string](),          // and it opens no connection
	}}
	switch at[2] {
	case "":
		n.Request.Scope = delegation.AllOf("docs:read")
		n.Request.Resource = delegation.Given("docs/" + at[1])
		// How large the document is turns out in the handler, which then has to
		// ask. An answer without the question would be replaced by a 403.
		n.Later = []string{delegation.DimensionSize}
	case "/comments":
		n.Request.Scope = delegation.AllOf("docs:comment")
		n.Request.Size = delegation.None[int64]()
		// The paragraph stands in the body.
		n.Later = []string{delegation.DimensionResources}
	}
	return n, nil
}

func read(w http.ResponseWriter, r *http.Request) {
	text, ok := documents[r.PathValue("name")]
	if err := guard.Size(r.Context(), int64(len(text))); err != nil {
		return // the guard answers
	}
	if !ok {
		http.Error(w, "there is no such document", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, text)
}

func comment(w http.ResponseWriter, r *http.Request) {
	var in struct{ Paragraph, Text string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&in); err != nil || !paragraphs.MatchString(in.Paragraph) {
		// Nothing has happened, and nothing is said that a token could forbid.
		http.Error(w, "the body is not a comment on a paragraph", http.StatusBadRequest)
		return
	}
	// The last question comes before the first effect.
	if err := guard.Resource(r.Context(), "docs/"+r.PathValue("name")+"/paragraph/"+in.Paragraph); err != nil {
		return // the guard answers
	}
	// On whose authority, and through whose hands. Agent is the last name that
	// is proved; one below it is what its delegator called it.
	chain := guard.From(r.Context())
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, "%s wrote %q, vouched for by %s\n", strings.Join(chain.Path(), " > "), in.Text, chain.Agent())
}

var paragraphs = regexp.MustCompile(`^[0-9]{1,9}$`)
