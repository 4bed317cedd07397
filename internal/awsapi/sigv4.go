package awsapi

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	isoTime    = "20060102T150405Z"
	isoDate    = "20060102"
	maxPresign = 7 * 24 * time.Hour // "Authenticating Requests: Using Query Parameters": 604800 seconds
)

// Authenticator verifies Signature Version 4. It signs the request again with the SDK's own signer, as the client
// must have done, and compares in constant time. What that signer never signs (User-Agent, Expect, Transfer-Encoding, an
// X-Amzn-Trace-Id, a Content-Length of zero) a client must not sign either: its request is refused.
type Authenticator struct {
	Keys   KeyStore
	Region string           // the only region in a credential scope
	Now    func() time.Time // the service's clock
}

// signature is what a request says about its own signing.
type signature struct {
	keyID, date, region, service string // the credential scope
	at                           time.Time
	signed                       []string // names of the signed headers, lower case
	hex                          string   // 64 hexadecimal digits
	presigned                    bool
	expires                      time.Duration // presigned only
}

// S3 verifies a request to the S3 door: by its Authorization header or as a presigned URL. The body it returns is
// verified while it is read (see Body) and must be read in place of r.Body. An *Error is a refusal that bears S3's
// code, message and status; any other error is a failure of the key store.
//
// The credential scope must name s3 and the Authenticator's region; x-amz-content-sha256 must be present and, as every other
// x-amz- header, be signed.
func (a *Authenticator) S3(r *http.Request) (Caller, *Body, error) {
	sig, err := readSignature(r, S3)
	if err != nil {
		return Caller{}, nil, err
	}
	hash := r.Header.Get("X-Amz-Content-Sha256")
	if sig.presigned && hash == "" {
		if hash = r.URL.Query().Get("X-Amz-Content-Sha256"); hash == "" {
			hash = unsignedPayload
		}
	}
	if hash == "" {
		return Caller{}, nil, &Error{Code: "InvalidRequest", Message: "Missing required header for this request: x-amz-content-sha256"}
	}
	key, err := a.verify(r, sig, hash, "s3", S3)
	if err != nil {
		return Caller{}, nil, err
	}
	b, err := newBody(r, hash, chunkSigner{
		key:   signingKey(key.Secret, sig.date, sig.region, sig.service),
		scope: sig.at.Format(isoTime) + "\n" + sig.scope(),
		prev:  sig.hex,
	})
	if err != nil {
		return Caller{}, nil, err
	}
	return NewCaller(key, S3), b, nil
}

// request verifies a request whose body is in memory: the API doors.
func (a *Authenticator) request(r *http.Request, body []byte, service string, p Protocol) (Caller, error) {
	sig, err := readSignature(r, p)
	if err != nil {
		return Caller{}, err
	}
	sum := sha256.Sum256(body)
	key, err := a.verify(r, sig, hex.EncodeToString(sum[:]), service, p)
	if err != nil {
		return Caller{}, err
	}
	return NewCaller(key, p), nil
}

func (s *signature) scope() string {
	return s.date + "/" + s.region + "/" + s.service + "/aws4_request"
}

// readSignature takes the signature apart. Nothing in it is to be trusted yet.
func readSignature(r *http.Request, p Protocol) (*signature, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil { // what cannot be parsed is not signed again, so it must not be there
		if p == S3 {
			return nil, &Error{Code: "InvalidURI", Message: "Couldn't parse the specified URI."}
		}
		return nil, &Error{Code: "MalformedQueryString", Message: "The query string contains a syntax error"}
	}
	header := r.Header.Values("Authorization")
	switch {
	case len(header) == 1 && query.Has("X-Amz-Algorithm"):
		return nil, &Error{Code: "InvalidArgument", Message: "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified"}
	case len(header) > 1:
		return nil, refuse(p, incomplete, "More than one Authorization header.")
	case len(header) == 1:
		return headerSignature(r, header[0], p)
	case query.Has("X-Amz-Algorithm"):
		return querySignature(query, p)
	}
	return nil, refuse(p, noCredentials, "")
}

func headerSignature(r *http.Request, header string, p Protocol) (*signature, error) {
	rest, ok := strings.CutPrefix(header, algorithm+" ")
	if !ok {
		return nil, refuse(p, incomplete, "Unsupported Authorization type; %s is required.", algorithm)
	}
	parts := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := parts[k]; twice {
			return nil, refuse(p, incomplete, "Authorization header has two '%s' parameters.", k)
		}
		parts[k] = v
	}
	for _, k := range []string{"Credential", "Signature", "SignedHeaders"} {
		if parts[k] == "" {
			return nil, refuse(p, incomplete, "Authorization header requires '%s' parameter.", k)
		}
	}
	dates := r.Header.Values("X-Amz-Date")
	if len(dates) != 1 {
		return nil, refuse(p, incomplete, "Authorization header requires existence of an 'X-Amz-Date' header.")
	}
	return newSignature(parts["Credential"], dates[0], parts["SignedHeaders"], parts["Signature"], p)
}

func querySignature(q url.Values, p Protocol) (*signature, error) {
	for _, k := range []string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"} {
		if len(q[k]) != 1 {
			return nil, queryError(p, "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.")
		}
	}
	if q.Get("X-Amz-Algorithm") != algorithm {
		return nil, queryError(p, `X-Amz-Algorithm only supports "`+algorithm+`"`)
	}
	seconds, err := strconv.ParseInt(q.Get("X-Amz-Expires"), 10, 32)
	switch {
	case err != nil:
		return nil, queryError(p, "X-Amz-Expires should be a number")
	case seconds < 1:
		return nil, queryError(p, "X-Amz-Expires must be non-negative")
	case time.Duration(seconds)*time.Second > maxPresign:
		return nil, queryError(p, "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds")
	}
	s, err := newSignature(q.Get("X-Amz-Credential"), q.Get("X-Amz-Date"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Signature"), p)
	if err != nil {
		return nil, err
	}
	s.presigned, s.expires = true, time.Duration(seconds)*time.Second
	return s, nil
}

// SignedFor is the service that a request says it is signed for, in its header or its URL; "" when it is not signed at all.
// Nothing is verified: it tells which door a request means, and whose error shape its sender reads.
func SignedFor(r *http.Request) string {
	credential := r.URL.Query().Get("X-Amz-Credential")
	if _, rest, ok := strings.Cut(r.Header.Get("Authorization"), "Credential="); ok {
		credential, _, _ = strings.Cut(rest, ",")
	}
	scope := strings.Split(credential, "/") // key/date/region/service/aws4_request
	if len(scope) < 5 {
		return ""
	}
	return scope[len(scope)-2]
}

// queryError is a malformed presigned URL, for which S3 has a code of its own.
func queryError(p Protocol, message string) *Error {
	if p == S3 {
		return &Error{Code: "AuthorizationQueryParametersError", Message: message}
	}
	return refuse(p, incomplete, "%s", message)
}

func newSignature(credential, date, signed, sig string, p Protocol) (*signature, error) {
	// An access key id has no slash, so the scope is the last four parts.
	c := strings.Split(credential, "/")
	if len(c) != 5 || c[0] == "" || c[4] != "aws4_request" {
		return nil, refuse(p, incomplete, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/aws4_request, got '%s'", printable(credential))
	}
	at, err := time.Parse(isoTime, date)
	if err != nil {
		return nil, refuse(p, incomplete, "Date must be in ISO-8601 'basic format'. Got '%s'. See http://en.wikipedia.org/wiki/ISO_8601", printable(date))
	}
	if b, err := hex.DecodeString(sig); err != nil || len(b) != sha256.Size {
		return nil, refuse(p, incomplete, "Signature must be %d hexadecimal digits.", 2*sha256.Size)
	}
	s := &signature{keyID: c[0], date: c[1], region: c[2], service: c[3], at: at, signed: strings.Split(signed, ";"), hex: strings.ToLower(sig)}
	if want := at.Format(isoDate); s.date != want {
		return nil, refuse(p, wrongScope, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'.", printable(s.date), want, date)
	}
	return s, nil
}

// verify checks everything about the signature but the payload itself, whose hash it takes as given, and returns the
// key that made it. The order of the checks is AWS's: scope, time, key, signature.
func (a *Authenticator) verify(r *http.Request, s *signature, payloadHash, service string, p Protocol) (AccessKey, error) {
	none := AccessKey{}
	if s.region != a.Region {
		if p == S3 {
			return none, refuse(p, wrongScope, "The authorization header is malformed; the region '%s' is wrong; expecting '%s'", printable(s.region), a.Region)
		}
		return none, refuse(p, wrongScope, "Credential should be scoped to a valid region, not '%s'. ", printable(s.region))
	}
	if s.service != service {
		if p == S3 {
			return none, refuse(p, wrongScope, "The authorization header is malformed; incorrect service \"%s\". This endpoint belongs to \"s3\".", printable(s.service))
		}
		return none, refuse(p, wrongScope, "Credential should be scoped to correct service: '%s'. ", service)
	}
	if err := s.checkTime(a.Now(), p); err != nil {
		return none, err
	}
	// Berth issues no session tokens, so a request that bears one was signed for somebody else.
	if r.Header.Get("X-Amz-Security-Token") != "" || r.URL.Query().Has("X-Amz-Security-Token") {
		if p == S3 {
			return none, &Error{Code: "InvalidToken", Message: "The provided token is malformed or otherwise invalid."}
		}
		return none, refuse(p, unknownKey, "")
	}
	key, err := a.Keys.AccessKey(r.Context(), s.keyID)
	if errors.Is(err, ErrNoSuchKey) {
		return none, refuse(p, unknownKey, "")
	}
	if err != nil {
		return none, fmt.Errorf("look up access key: %w", err)
	}
	if err := s.checkHeaders(r, p); err != nil {
		return none, err
	}
	want, err := s.again(r, key, payloadHash)
	if err != nil {
		return none, fmt.Errorf("sign again: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(want), []byte(s.hex)) != 1 {
		return none, refuse(p, wrongSignature, "")
	}
	return key, nil
}

func (s *signature) checkTime(now time.Time, p Protocol) error {
	now = now.UTC()
	skew := skewOf(p)
	minutes := int(skew / time.Minute)
	early, late := now.Add(-skew), now.Add(skew)
	switch {
	case s.at.After(late):
		return refuse(p, skewed, "Signature not yet current: %s is still later than %s (%s + %d min.)",
			s.at.Format(isoTime), late.Format(isoTime), now.Format(isoTime), minutes)
	case s.presigned && now.After(s.at.Add(s.expires)):
		return refuse(p, expired, "Signature expired: %s is now earlier than %s", s.at.Add(s.expires).Format(isoTime), now.Format(isoTime))
	case !s.presigned && s.at.Before(early):
		return refuse(p, skewed, "Signature expired: %s is now earlier than %s (%s - %d min.)",
			s.at.Format(isoTime), early.Format(isoTime), now.Format(isoTime), minutes)
	}
	return nil
}

// checkHeaders refuses a signature that leaves open what it must close: the host, the date, and every x-amz- header
// (X-Amz-Target chooses the operation).
func (s *signature) checkHeaders(r *http.Request, p Protocol) error {
	if !slices.Contains(s.signed, "host") {
		return refuse(p, unsignedHeader, "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	for name := range r.Header {
		if l := strings.ToLower(name); strings.HasPrefix(l, "x-amz-") && !slices.Contains(s.signed, l) {
			return refuse(p, unsignedHeader, "'%s' must be a 'SignedHeader' in the AWS Authorization.", printable(l))
		}
	}
	return nil
}

// again signs a copy of the request that has the signed headers only, and returns the signature in hexadecimal.
func (s *signature) again(r *http.Request, key AccessKey, payloadHash string) (string, error) {
	c := &http.Request{Method: r.Method, Host: r.Host, Header: http.Header{},
		URL: &url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}}
	for _, h := range s.signed {
		switch h {
		case "host":
		case "content-length": // net/http takes it out of the headers, and the signer reads it from here
			c.ContentLength = r.ContentLength
		default:
			if v := r.Header.Values(h); v != nil {
				c.Header[http.CanonicalHeaderKey(h)] = v
			}
		}
	}
	cred := aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal()}
	// A signer for each request: a shared one keeps derived keys by key id, and would go on with a secret that has changed.
	signer := v4.NewSigner(func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = s.service == "s3" // S3 signs the path as it is sent, the others escape it once more
		o.DisableHeaderHoisting = true               // headers were already moved to the query by the client, if at all
	})
	if !s.presigned {
		err := signer.SignHTTP(context.Background(), cred, c, payloadHash, s.service, s.region, s.at)
		_, sig, _ := strings.Cut(c.Header.Get("Authorization"), "Signature=")
		return sig, err
	}
	q := c.URL.Query()
	q.Del("X-Amz-Signature")
	c.URL.RawQuery = q.Encode()
	signed, _, err := signer.PresignHTTP(context.Background(), cred, c, payloadHash, s.service, s.region, s.at)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(signed)
	if err != nil {
		return "", err
	}
	return u.Query().Get("X-Amz-Signature"), nil
}

// signingKey derives the key of a day, region and service from the secret.
func signingKey(secret Secret, date, region, service string) []byte {
	k := []byte("AWS4" + secret.Reveal())
	for _, part := range []string{date, region, service, "aws4_request"} {
		k = mac(k, part)
	}
	return k
}

func mac(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = io.WriteString(h, data)
	return h.Sum(nil)
}

// printable is a piece of the request for a message: cut short, control characters quoted.
func printable(s string) string {
	const most = 128
	if len(s) > most {
		s = s[:most] + "..."
	}
	q := strconv.QuoteToGraphic(s)
	return q[1 : len(q)-1]
}
