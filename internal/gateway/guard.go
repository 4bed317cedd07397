package gateway

import (
	"net/http"
	"net/url"
	"strings"
)

// policy is the pages' Content-Security-Policy: their own scripts and styles, no inline script, no frames around them.
// noVNC draws the pointer as a data: picture.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Guard gives every answer of a page the security headers and refuses requests that change something and come from another
// site's page. The Referrer-Policy is not no-referrer because that makes browsers hide the Origin that the refusal goes by.
func Guard(h http.Handler) http.Handler {
	h = http.NewCrossOriginProtection().Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"Content-Security-Policy":      policy,
			"X-Content-Type-Options":       "nosniff",
			"X-Frame-Options":              "DENY",
			"Referrer-Policy":              "same-origin",
			"Cross-Origin-Opener-Policy":   "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin",
			"Cache-Control":                "no-store",
		} {
			w.Header().Set(name, value)
		}
		h.ServeHTTP(w, r)
	})
}

// sameOrigin tells a websocket that a page of ours opens. Browsers always name the page's origin there, and no other check of
// theirs applies to websockets. The scheme is not compared: a proxy in front may do TLS.
func sameOrigin(r *http.Request) bool {
	u, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}
