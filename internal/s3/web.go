package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// WebOptions say what may be fetched by https.
type WebOptions struct {
	// Hosts that may be fetched from, "downloads.example.com" or "example.com:8443"; redirects too lead nowhere else.
	Hosts []string
	// Private are networks that may be connected to although they are not public: those of hosts of your own.
	Private []netip.Prefix
	// TLS replaces the system's certificate authorities; nil keeps them.
	TLS *tls.Config
	// Stall is how long a download may not move before it is begun again; a minute when 0.
	Stall time.Duration
}

// Web fetches files by https, in ranges, from hosts that were allowed. Which address a name leads to is looked at when the
// connection is made, so that neither a redirect nor a name server can lead it into a private network.
type Web struct {
	hosts  []string
	client *http.Client
	stall  time.Duration
	piece  int64
}

// maxRedirects is how many are followed: to a region, to a content network, and one to spare.
const maxRedirects = 3

// NewWeb makes a place of allowed hosts. It does not connect.
func NewWeb(o WebOptions) *Web {
	w := &Web{stall: o.Stall, piece: defaultPieceBytes}
	if w.stall <= 0 {
		w.stall = stallTime
	}
	for _, h := range o.Hosts {
		w.hosts = append(w.hosts, withPort(strings.ToLower(h)))
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: func(network, address string, _ syscall.RawConn) error { return dialable(address, o.Private) }}
	transport := &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: o.TLS, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: w.stall,
		DisableCompression: true, ForceAttemptHTTP2: true, MaxConnsPerHost: 2 * pieceGETs, IdleConnTimeout: time.Minute,
		// No proxy: it would make the connection, and nobody could look at the address.
	}
	w.client = &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return ErrAccessDenied.saying("it redirects more than %d times", maxRedirects)
		}
		if err := w.allowed(r.URL); err != nil {
			to := url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host, Path: r.URL.Path} // what lets one in there is not for people to read
			return ErrAccessDenied.saying("it redirects to %s: %s", to.String(), err)
		}
		return nil
	}}
	return w
}

func withPort(host string) string {
	if _, _, err := net.SplitHostPort(host); err != nil {
		return net.JoinHostPort(strings.Trim(host, "[]"), "443")
	}
	return host
}

// public reports whether an address is one of the Internet at large. The blocks besides netip's own notions are those of
// the IANA IPv4 and IPv6 Special-Purpose Address Registries that are not globally reachable; of IPv6, 2000::/3 is all that IANA
// has given out as global unicast, which leaves out what only looks like it: site-local fec0::/10 and IPv4-compatible ::/96.
func public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.Zone() != "" || a.Is6() && !globalUnicast.Contains(a) {
		return false
	}
	return !slices.ContainsFunc(specialPurpose, func(p netip.Prefix) bool { return p.Contains(a) })
}

var globalUnicast = netip.MustParsePrefix("2000::/3")

var specialPurpose = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("3fff::/20"),
}

// dialable refuses to connect to an address that is not public, unless its network was allowed.
func dialable(address string, private []netip.Prefix) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return ErrAccessDenied.saying("%s is no address", address)
	}
	ip := a.Addr().Unmap()
	if public(ip) || slices.ContainsFunc(private, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return nil
	}
	return ErrAccessDenied.saying("its host has the address %s, which is not public", ip)
}

// Check implements Place.
func (w *Web) Check(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("it cannot be read")
	}
	return w.allowed(u)
}

func (w *Web) allowed(u *url.URL) error {
	switch {
	case u.Scheme != "https":
		return errors.New("it must begin with https://")
	case u.User != nil:
		return errors.New("a password does not belong into a URL")
	case !slices.Contains(w.hosts, withPort(strings.ToLower(u.Host))):
		return fmt.Errorf("the host %s is not allowed", u.Host)
	}
	return nil
}

// get asks for a range of the file, as it was when etag was told ("": as it is).
func (w *Web) get(ctx context.Context, raw, etag string, s span) (*http.Response, error) {
	if err := w.Check(raw); err != nil {
		return nil, ErrAccessDenied.saying("%s", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, raw, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Range", s.header())
	r.Header.Set("Accept-Encoding", "identity")
	r.Header.Set("User-Agent", "berth")
	if strings.HasPrefix(etag, `"`) {
		r.Header.Set("If-Match", etag)
	} else if etag != "" {
		r.Header.Set("If-Unmodified-Since", etag)
	}
	answer, err := w.client.Do(r)
	if err != nil {
		var refusal *Refusal // of a redirect or an address
		if errors.As(err, &refusal) {
			return nil, refusal
		}
		if untrusted := (*tls.CertificateVerificationError)(nil); errors.As(err, &untrusted) {
			return nil, ErrAccessDenied.saying("its host's certificate is not trusted here: %s", untrusted.Err)
		}
		if plain := (tls.RecordHeaderError{}); errors.As(err, &plain) || errors.Is(err, http.ErrSchemeMismatch) {
			return nil, ErrInvalidRequest.saying("its host does not speak TLS")
		}
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			return nil, wrapped.Err // the URL may be signed, and does not belong into logs
		}
		return nil, err
	}
	if err := statusError(answer.StatusCode); err != nil {
		answer.Body.Close()
		return nil, err
	}
	if etag != "" && validator(answer) != etag {
		answer.Body.Close()
		return nil, ErrPreconditionFailed
	}
	return answer, nil
}

// statusError is what an answer's status means for a download that asked for a range.
func statusError(status int) error {
	switch {
	case status == http.StatusPartialContent:
		return nil
	case status == http.StatusOK:
		return ErrInvalidRequest.saying("its host does not send files in ranges")
	case status == http.StatusNotFound, status == http.StatusGone:
		return ErrNoSuchKey
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return ErrAccessDenied
	case status == http.StatusPreconditionFailed:
		return ErrPreconditionFailed
	case status == http.StatusRequestedRangeNotSatisfiable:
		return ErrInvalidRequest.saying("the file is empty")
	case passing(status):
		return &StatusError{status}
	}
	return ErrInvalidRequest.saying("its host answered %d %s", status, http.StatusText(status))
}

// validator is what an answer says of which version of the file it has: a strong ETag with its quotes, or the time of the last change.
func validator(r *http.Response) string {
	if e := r.Header.Get("ETag"); strings.HasPrefix(e, `"`) {
		return e
	}
	return r.Header.Get("Last-Modified")
}

// Stat implements Place, by a GET of the first byte: a URL that was signed for GET does not let a HEAD in.
func (w *Web) Stat(ctx context.Context, raw string) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, w.stall)
	defer cancel()
	r, err := w.get(ctx, raw, "", span{0, 1})
	if err != nil {
		return Info{}, err
	}
	defer r.Body.Close()
	total, ok := strings.CutPrefix(r.Header.Get("Content-Range"), "bytes 0-0/")
	size, err := strconv.ParseInt(total, 10, 64)
	if !ok || err != nil || size <= 0 || size > MaxObjectBytes {
		return Info{}, ErrInvalidRequest.saying("its host does not tell how large the file is")
	}
	tag := validator(r)
	if tag == "" {
		return Info{}, ErrInvalidRequest.saying("its host tells neither ETag nor Last-Modified, so that a change of the file could not be seen")
	}
	modified, _ := http.ParseTime(r.Header.Get("Last-Modified")) // for people
	return Info{Size: size, ETag: tag, Modified: modified}, nil
}

// Stage implements Place, by ranged GETs in parallel, as External's.
func (w *Web) Stage(ctx context.Context, raw, dst string, progress func(done, total int64)) error {
	info, err := w.Stat(ctx, raw)
	if err != nil {
		return err
	}
	d := &download{source: raw, dst: dst, info: info, pieceBytes: w.piece, stall: w.stall, progress: progress, refused: func(err error) error { return err },
		get: func(ctx context.Context, s span) (io.ReadCloser, string, error) {
			r, err := w.get(ctx, raw, info.ETag, s)
			if err != nil {
				return nil, "", err
			}
			return r.Body, r.Header.Get("Content-Range"), nil
		}}
	return d.stage(ctx)
}
