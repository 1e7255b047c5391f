package store

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// d1Connections bounds the requests of one process that are under way.
	d1Connections = 8
	// d1ReadTime and d1WriteTime are how long a request may take. A write
	// leaves time to find out what became of it (audit.Config.Deadline).
	d1ReadTime  = 5 * time.Second
	d1WriteTime = 3500 * time.Millisecond
	// d1AnswerLimit bounds an answer in memory.
	d1AnswerLimit = 64 << 20
	// d1Pause is how long to keep away if a 429 does not say.
	d1Pause = 10 * time.Second
)

// d1Statement is one statement with its parameters, as they travel.
type d1Statement struct {
	SQL    string `json:"sql"`
	Params []any  `json:"params"`
}

// d1Result is what one statement answered.
type d1Result struct {
	Results struct {
		Columns []string `json:"columns"`
		Rows    [][]any  `json:"rows"`
	} `json:"results"`
}

// d1Client asks D1 over HTTP. The bridge speaks the form of the REST API.
type d1Client struct {
	place d1Place
	token Token
	http  *http.Client
	until atomic.Int64 // Unix ms: not asked before, because of a 429

	closed atomic.Bool // asked no more
}

func newD1Client(place d1Place, token Token) *d1Client {
	dialer := &net.Dialer{Timeout: d1WriteTime, KeepAlive: 15 * time.Second}
	return &d1Client{place: place, token: token, http: &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           dialer.DialContext,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   d1Connections,
			MaxConnsPerHost:       2 * d1Connections,
			IdleConnTimeout:       time.Minute,
			TLSHandshakeTimeout:   d1WriteTime,
			ExpectContinueTimeout: time.Second,
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
		},
		// The token goes where the operator said and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// query runs one read.
func (c *d1Client) query(ctx context.Context, s d1Statement) (d1Result, error) {
	ctx, cancel := context.WithTimeout(ctx, d1ReadTime)
	defer cancel()
	results, err := c.call(ctx, c.place.query, s)
	if err != nil {
		return d1Result{}, err
	}
	if len(results) != 1 {
		return d1Result{}, &d1Error{fate: d1Unknown, text: fmt.Sprintf("%d results of one statement", len(results))}
	}
	return results[0], nil
}

// run runs statements in order, all of them or none. The error is a *d1Error.
func (c *d1Client) run(ctx context.Context, within time.Duration, statements []d1Statement) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, err := c.call(ctx, c.place.batch, map[string]any{"batch": statements})
	return err
}

// call sends one request.
func (c *d1Client) call(ctx context.Context, url string, body any) ([]d1Result, error) {
	if c.closed.Load() {
		return nil, &d1Error{fate: d1Away, text: "the database is closed"}
	}
	if wait := time.Until(time.UnixMilli(c.until.Load())); wait > 0 {
		return nil, &d1Error{fate: d1Away, text: fmt.Sprintf("too many requests; asked again in %s", wait.Round(time.Second))}
	}
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	var encoded bytes.Buffer
	encoder := json.NewEncoder(&encoded)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return nil, &d1Error{fate: d1Refused, text: err.Error()}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, &encoded)
	if err != nil {
		return nil, &d1Error{fate: d1Refused, text: "bad address"}
	}
	request.Header.Set("Authorization", "Bearer "+string(c.token))
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		fate := d1Away
		if sent.Load() {
			fate = d1Unknown
		}
		return nil, &d1Error{fate: fate, text: withoutURL(err).Error()}
	}
	defer response.Body.Close()
	return c.read(response)
}

// withoutURL is the error of a request without its address, which names the
// account.
func withoutURL(err error) error {
	var e interface{ Unwrap() error }
	if errors.As(err, &e) && e.Unwrap() != nil {
		return e.Unwrap()
	}
	return errors.New("no answer")
}

// read reads an answer.
func (c *d1Client) read(response *http.Response) ([]d1Result, error) {
	if response.StatusCode == http.StatusTooManyRequests {
		pause := d1Pause
		if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds >= 0 && seconds <= 3600 {
			pause = time.Duration(seconds) * time.Second
		}
		c.until.Store(time.Now().Add(pause).UnixMilli())
		return nil, &d1Error{fate: d1Away, text: "too many requests"}
	}
	var answer struct {
		Success bool
		Errors  []struct {
			Code    int
			Message string
		}
		Result []d1Result
	}
	body := &io.LimitedReader{R: response.Body, N: d1AnswerLimit}
	decoder := json.NewDecoder(body)
	decoder.UseNumber() // design §6: a float64 would corrupt what it cannot hold
	if err := decoder.Decode(&answer); err != nil {
		switch {
		case response.StatusCode >= 400 && response.StatusCode < 500:
			return nil, &d1Error{fate: d1Away, text: "HTTP status " + strconv.Itoa(response.StatusCode)}
		case body.N <= 0:
			return nil, &d1Error{fate: d1Unknown, text: "the answer is too long"}
		}
		return nil, &d1Error{fate: d1Unknown, text: fmt.Sprintf("HTTP status %d, and no answer that can be read", response.StatusCode)}
	}
	if answer.Success && response.StatusCode == http.StatusOK {
		return answer.Result, nil
	}
	text, code := "", 0
	if len(answer.Errors) > 0 {
		text, code = answer.Errors[0].Message, answer.Errors[0].Code
	}
	return nil, newD1Error(response.StatusCode, code, text)
}
