package sidecar

import (
	"net/http"
	"strings"
)

// Hints are what is known of the request behind a touch: the policy's rules decide by it. All of it is optional, nothing is kept.
type Hints struct {
	Host           string
	Method         string
	Path           string
	SecFetchUser   string
	SecFetchMode   string
	SecFetchDest   string
	SecPurpose     string
	PageVisibility PageVisibility
	InputReport    bool // A page's report that somebody has pressed a key or moved the mouse there.
}

// HintsOf are those of an HTTP request, with its raw (percent-encoded) path. What the sidecar would refuse is left out or cut, for it
// is whatever somebody sent.
func HintsOf(r *http.Request) *Hints {
	host := r.Host
	if at := strings.LastIndexByte(host, ':'); at >= 0 && strings.Trim(host[at+1:], "0123456789") == "" {
		host = host[:at]
	}
	path := r.URL.EscapedPath()
	if at := strings.IndexByte(r.RequestURI, '?'); strings.HasPrefix(r.RequestURI, "/") {
		path = r.RequestURI
		if at >= 0 {
			path = path[:at]
		}
	}
	return &Hints{
		Host: visible(host, 255), Method: visible(r.Method, 32), Path: visible(path[:min(len(path), 2048)], 2048),
		SecFetchUser: visible(r.Header.Get("Sec-Fetch-User"), 64), SecFetchMode: visible(r.Header.Get("Sec-Fetch-Mode"), 64),
		SecFetchDest: visible(r.Header.Get("Sec-Fetch-Dest"), 64), SecPurpose: visible(r.Header.Get("Sec-Purpose"), 64),
	}
}

// visible is a value that the sidecar takes: visible ASCII and spaces, not too long. Else nothing.
func visible(value string, longest int) string {
	if len(value) > longest {
		return ""
	}
	for _, letter := range []byte(value) {
		if letter < 0x20 || letter > 0x7e {
			return ""
		}
	}
	return value
}
