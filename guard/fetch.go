package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// maxFetched bounds what is fetched from an authorization server: its key set,
// and its revocation feed (delegation.md §9: "fetch ≤ 1 MiB").
const maxFetched = 1 << 20

// fetching returns the client of a configuration, or one of its own, which
// follows no redirects: keys and revocations come from where they were said to
// be.
func fetching(client *http.Client) *http.Client {
	if client != nil {
		return client
	}
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// fetched is an answer that was read whole.
type fetched struct {
	body      []byte
	etag      string
	unchanged bool // 304 to the etag that was sent
}

// fetch gets a document. etag is that of what is held already, "" for nothing.
func fetch(ctx context.Context, client *http.Client, url, accept, etag string) (fetched, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fetched{}, err
	}
	req.Header.Set("Accept", accept)
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fetched{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified && etag != "" {
		return fetched{unchanged: true}, nil
	}
	if resp.StatusCode != http.StatusOK {
		return fetched{}, fmt.Errorf("status %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFetched+1))
	if err != nil {
		return fetched{}, err
	}
	if len(body) > maxFetched {
		return fetched{}, errors.New("larger than 1 MiB")
	}
	return fetched{body: body, etag: resp.Header.Get("ETag")}, nil
}
