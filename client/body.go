package client

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
)

// meter counts the bytes of one direction and refuses what is beyond the
// max_file_size of any link. Nothing beyond it passes.
type meter struct {
	v     *verdict
	ctx   context.Context
	limit int64 // −1: none
	n     int64 // touched by the one who reads alone
	cut   atomic.Pointer[error]
}

// newMeter measures against the smallest max_file_size.
func (v *verdict) newMeter(ctx context.Context) *meter {
	m := &meter{v: v, ctx: ctx, limit: -1}
	for _, link := range v.grant.Links() {
		if size := link.Limits.MaxFileSize; size != nil && (m.limit < 0 || *size < m.limit) {
			m.limit = *size
		}
	}
	return m
}

// read passes on at most what is left and fails at the byte after that.
func (m *meter) read(from io.Reader, p []byte) (int, error) {
	if m.limit < 0 {
		return from.Read(p)
	}
	if refused := m.refused(); refused != nil {
		return 0, refused
	}
	left := m.limit - m.n
	if int64(len(p)) > left+1 {
		p = p[:left+1] // one more, to see whether there is one
	}
	n, err := from.Read(p)
	if int64(n) > left {
		refused := m.v.refuse(m.ctx, m.v.grant.AllowsSize(m.limit+1))
		m.cut.Store(&refused)
		m.n = m.limit
		return int(left), refused
	}
	m.n += int64(n)
	return n, err
}

// refused is the refusal that cut it, nil if none did.
func (m *meter) refused() error {
	if err := m.cut.Load(); err != nil {
		return *err
	}
	return nil
}

// metered is a body with a meter in it.
type metered struct {
	*meter
	body io.ReadCloser
}

func (b metered) Read(p []byte) (int, error) { return b.meter.read(b.body, p) }
func (b metered) Close() error               { return b.body.Close() }

// meteredDuplex is the connection behind a 101, each direction with a meter of
// its own.
type meteredDuplex struct {
	metered
	out    *meter
	writer io.Writer
}

func (d meteredDuplex) Write(p []byte) (int, error) {
	if refused := d.out.refused(); refused != nil {
		return 0, refused
	}
	if left := d.out.limit - d.out.n; d.out.limit >= 0 && int64(len(p)) > left {
		refused := d.out.v.refuse(d.out.ctx, d.out.v.grant.AllowsSize(d.out.limit+1))
		d.out.cut.Store(&refused)
		return 0, refused
	}
	n, err := d.writer.Write(p)
	d.out.n += int64(n)
	return n, err
}

// meterRequest puts the body into a request, with a meter if its length is not
// known; a known length was judged, and net/http keeps to it.
func (v *verdict) meterRequest(out *http.Request, body io.ReadCloser) *meter {
	m := v.newMeter(out.Context())
	out.Body = body
	if noBody(out) || out.ContentLength > 0 || m.limit < 0 {
		return m
	}
	out.Body = metered{m, body}
	out.GetBody = nil // net/http does not get to send an unmeasured copy
	return m
}

// meterResponse holds an answer to the same limit: "the number of bytes read or
// written". The body of a known length that is too long is not read at all.
func (v *verdict) meterResponse(answer *http.Response) error {
	v.attempt.Status = answer.StatusCode
	m := v.newMeter(answer.Request.Context())
	if m.limit < 0 {
		return nil
	}
	if answer.StatusCode == http.StatusSwitchingProtocols {
		if rw, ok := answer.Body.(io.ReadWriteCloser); ok {
			answer.Body = meteredDuplex{metered{m, rw}, v.newMeter(m.ctx), rw}
		}
		return nil
	}
	if answer.ContentLength > m.limit && answer.Request.Method != http.MethodHead {
		_ = answer.Body.Close()
		return v.refuse(m.ctx, v.grant.AllowsSize(answer.ContentLength))
	}
	answer.Body = metered{m, answer.Body}
	return nil
}
