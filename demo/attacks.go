package demo

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// What the story does that must be refused. Where an honest runtime or library
// would not even try, the step does it by hand.

// presented is what somebody shows to the git host, by hand.
type presented struct {
	// credential is the token, and the key that the proof is made with.
	credential client.Credential
	// scheme of the Authorization header; "" is DPoP.
	scheme string
	// proofURL is what the proof says it is for; "" is the request's own.
	proofURL string
	// proof, if set, is sent in place of a fresh one; none sends no proof.
	proof string
}

// none as a proof: there is no DPoP header.
const none = "none"

// send is a request of a program that checks nothing itself.
func (s *stage) send(ctx context.Context, method, path, body string, p presented) (Outcome, error) {
	r, err := request(ctx, method, path, body)
	if err != nil {
		return Outcome{}, err
	}
	if p.scheme == "" {
		p.scheme = delegation.DPoP
	}
	if p.proof == "" {
		if p.proof, err = s.proof(method, p.proofURLFor(r), p.credential); err != nil {
			return Outcome{}, err
		}
	}
	r.Header.Set("Authorization", p.scheme+" "+string(p.credential.Token))
	if p.proof != none {
		r.Header.Set("DPoP", p.proof)
	}
	return ask(s.plain, r)
}

func (p presented) proofURLFor(r *http.Request) string {
	if p.proofURL != "" {
		return p.proofURL
	}
	return r.URL.String()
}

func (s *stage) proof(method, url string, c client.Credential) (string, error) {
	return agent.SignProof(c.Key, agent.Proof{Method: method, URL: url, Token: string(c.Token), IssuedAt: s.cfg.Now()})
}

var longComment = strings.Repeat("It goes on. ", 5000/12+1)[:5000]

func tooLong(ctx context.Context, s *stage) (Outcome, error) {
	return with(commenting, http.MethodPost, ThreadID(thePull, theThread), longComment)(ctx, s)
}

func tooLongUnchecked(ctx context.Context, s *stage) (Outcome, error) {
	return s.send(ctx, http.MethodPost, ThreadID(thePull, theThread), longComment, presented{credential: s.comments})
}

// thief is a token in the hands of somebody with another key.
func thief(c client.Credential) (client.Credential, error) {
	key, err := agent.GenerateKey()
	c.Key = key
	return c, err
}

func stolen(ctx context.Context, s *stage) (Outcome, error) {
	taken, err := thief(s.reading)
	if err != nil {
		return Outcome{}, err
	}
	return s.send(ctx, http.MethodGet, PullID(thePull), "", presented{credential: taken})
}

func withoutProof(ctx context.Context, s *stage) (Outcome, error) {
	return s.send(ctx, http.MethodGet, PullID(thePull), "", presented{credential: s.reading, proof: none})
}

func asBearer(ctx context.Context, s *stage) (Outcome, error) {
	return s.send(ctx, http.MethodGet, PullID(thePull), "",
		presented{credential: s.reading, scheme: delegation.Bearer, proof: none})
}

func proofForOther(ctx context.Context, s *stage) (Outcome, error) {
	return s.send(ctx, http.MethodGet, PullID(thePull)+"/diff", "",
		presented{credential: s.reading, proofURL: Resource + "/" + PullID(thePull)})
}

func replayed(ctx context.Context, s *stage) (Outcome, error) {
	proof, err := s.proof(http.MethodGet, Resource+"/"+PullID(thePull), s.reading)
	if err != nil {
		return Outcome{}, err
	}
	once := presented{credential: s.reading, proof: proof}
	first, err := s.send(ctx, http.MethodGet, PullID(thePull), "", once)
	if err != nil {
		return Outcome{}, err
	}
	if first.Status != http.StatusOK {
		return first, fmt.Errorf("the proof did not work the first time: %d", first.Status)
	}
	return s.send(ctx, http.MethodGet, PullID(thePull), "", once)
}

// child derives a link below the second token, for a key of an accomplice.
func (s *stage) child() (client.Credential, error) {
	key, err := agent.GenerateKey()
	if err != nil {
		return client.Credential{}, err
	}
	chain, err := s.comments.Derive(key.Public(), "accomplice", delegation.Narrow{
		Scopes: []string{WriteComment}, TTL: commentLife,
	}, s.cfg.Now())
	if err != nil {
		return client.Credential{}, err
	}
	return client.Hold(chain, key)
}

// forge writes the last link of a chain again, with other claims and signed by
// a key. The library does not do that for anybody.
func forge(c client.Credential, change func(claims map[string]any), key agent.PrivateKey) (client.Credential, error) {
	parts := strings.Split(string(c.Token), "~")
	link := strings.Split(parts[len(parts)-1], ".")
	payload, err := base64.RawURLEncoding.DecodeString(link[1])
	if err != nil {
		return c, err
	}
	claims := map[string]any{}
	d := json.NewDecoder(strings.NewReader(string(payload)))
	d.UseNumber()
	if err := d.Decode(&claims); err != nil {
		return c, err
	}
	change(claims)
	if payload, err = json.Marshal(claims); err != nil {
		return c, err
	}
	signed := link[0] + "." + base64.RawURLEncoding.EncodeToString(payload)
	signature, err := key.Sign([]byte(signed))
	if err != nil {
		return c, err
	}
	parts[len(parts)-1] = signed + "." + base64.RawURLEncoding.EncodeToString(signature)
	c.Token = client.Token(strings.Join(parts, "~"))
	return c, nil
}

func widerChild(ctx context.Context, s *stage) (Outcome, error) {
	child, err := s.child()
	if err != nil {
		return Outcome{}, err
	}
	// The library refuses to derive it …
	_, err = s.comments.Derive(child.Key.Public(), "accomplice", delegation.Narrow{
		Scopes: []string{WriteComment, WriteRepository},
	}, s.cfg.Now())
	if delegation.ReasonOf(err) != delegation.NotNarrower {
		return Outcome{}, fmt.Errorf("deriving it offline: %v", err)
	}
	// … and so does the git host, of one that was written by hand.
	wider, err := forge(child, func(claims map[string]any) {
		claims["scope"] = WriteComment + " " + WriteRepository
	}, s.comments.Key)
	if err != nil {
		return Outcome{}, err
	}
	return s.send(ctx, http.MethodPost, ThreadID(thePull, theThread), "Wider.", presented{credential: wider})
}

func strangersChild(ctx context.Context, s *stage) (Outcome, error) {
	child, err := s.child()
	if err != nil {
		return Outcome{}, err
	}
	stranger, err := agent.GenerateKey()
	if err != nil {
		return Outcome{}, err
	}
	forged, err := forge(child, func(claims map[string]any) {
		claims["iss"] = stranger.Public().ThumbprintURI()
	}, stranger)
	if err != nil {
		return Outcome{}, err
	}
	return s.send(ctx, http.MethodPost, ThreadID(thePull, theThread), "Forged.", presented{credential: forged})
}

func parentsToken(ctx context.Context, s *stage) (Outcome, error) {
	root, _, _ := strings.Cut(string(s.comments.Token), "~")
	parent := s.comments
	parent.Token = client.Token(root)
	return s.send(ctx, http.MethodGet, PullID(otherPull), "", presented{credential: parent})
}

// exchangeByOther: the git host holds the token that was shown to it, and tries
// to make more of it.
func exchangeByOther(ctx context.Context, s *stage) (Outcome, error) {
	taken, err := thief(s.reading)
	if err != nil {
		return Outcome{}, err
	}
	_, err = s.reporter.client.Exchange(ctx, taken, client.ExchangeAsk{Scopes: []string{ReadPull}, TTL: 30 * time.Second})
	return refusedBy(err)
}

func exchangeRevoked(ctx context.Context, s *stage) (Outcome, error) {
	key, err := agent.GenerateKey()
	if err != nil {
		return Outcome{}, err
	}
	made, _, err := s.delegate(ctx, key.Public(), commentLife, ReadPull)
	if err != nil {
		return Outcome{}, err
	}
	var gone map[string]any
	if _, err := s.mcp.call(ctx, "revoke", map[string]any{"token_id": made.TokenID}, &gone); err != nil {
		return Outcome{}, err
	}
	held, err := client.Hold(made.Token, key)
	if err != nil {
		return Outcome{}, err
	}
	_, err = s.reviewer.client.Exchange(ctx, held, client.ExchangeAsk{Scopes: []string{ReadPull}, TTL: 30 * time.Second})
	return refusedBy(err)
}

// errExchanged: somebody got what nobody may get.
var errExchanged = errors.New("the exchange was not refused")

func refusedBy(err error) (Outcome, error) {
	if err == nil {
		return Outcome{Status: http.StatusOK}, errExchanged
	}
	return failed(err)
}
