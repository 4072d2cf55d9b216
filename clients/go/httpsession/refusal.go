package httpsession

import (
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	sidecar "session-sidecar"
	"session-sidecar/internal/gate"
)

// The rest of a sentence that begins with "It ended", as the sidecar's own door says it.
var words = map[sidecar.EndReason]string{
	sidecar.IdleTimeout:     "by inactivity",
	sidecar.AbsoluteTimeout: "because the longest time since login had passed",
	sidecar.BrowserClosed:   "because its browser was closed or out of reach",
	sidecar.Logout:          "by logout",
	sidecar.Revoked:         "because it was revoked",
	sidecar.Superseded:      "because a newer session of the same person took its place",
	sidecar.RotatedAway:     "under this name only: it was given a new id and goes on",
}

// refusal is what a script is told, in the form of the sidecar's HTTP door.
type refusal struct {
	Error      string      `json:"error"`
	Message    string      `json:"message"`
	SessionRef sidecar.Ref `json:"session_ref,omitempty"`
	End        *endAsJSON  `json:"end,omitempty"`
	LoginURL   string      `json:"login_url,omitempty"`
}

// endAsJSON tells not by whom, and no note.
type endAsJSON struct {
	Reason  sidecar.EndReason `json:"reason"`
	Message string            `json:"message"`
	EndTime string            `json:"end_time,omitempty"`
}

const away = "For a moment it cannot be told who is logged in. Please try again."

func (g *Guard) refuse(w http.ResponseWriter, r *http.Request, verdict gate.Verdict) {
	w.Header().Set("Cache-Control", "no-store")
	told := refusal{Error: verdict.Error, LoginURL: g.options.LoginURL}
	status := http.StatusUnauthorized
	switch verdict.Error {
	case gate.Missing:
		told.Message = "the request names no session: send the person to the login page"
	case gate.ReadOnly:
		status, told.Message = http.StatusForbidden, "the session is for reading only"
	case gate.Unavailable:
		status, told.Message = http.StatusServiceUnavailable, away
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter(verdict.Answer)))
		if isNavigation(r) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, away+"\n")
			return
		}
	}
	switch over := verdict.Answer.(type) {
	case *sidecar.Unknown:
		told.SessionRef = over.SessionRef
		told.Message = "the session is not known: it is over; send the person to the login page"
	case *sidecar.Ended:
		told.SessionRef = over.SessionRef
		told.Message = strings.TrimSpace("the session has ended "+words[over.End.Reason]) + "; send the person to the login page"
		if over.End.Reason != "" {
			told.End = &endAsJSON{Reason: over.End.Reason, Message: words[over.End.Reason]}
			if !over.End.EndTime.IsZero() {
				told.End.EndTime = over.End.EndTime.UTC().Format("2006-01-02T15:04:05.000Z07:00")
			}
		}
	}
	if status == http.StatusUnauthorized && g.options.LoginURL != "" && isNavigation(r) {
		g.toLogin(w, r, told.End)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(told)
}

func retryAfter(answer sidecar.Answer) int {
	if unreachable, is := answer.(*sidecar.Unreachable); is && unreachable.RetryAfter > time.Second {
		return int(math.Ceil(unreachable.RetryAfter.Seconds()))
	}
	return 1
}

// toLogin sends a navigation to the login page, with the reason and the way back.
func (g *Guard) toLogin(w http.ResponseWriter, r *http.Request, end *endAsJSON) {
	to := *g.login
	query := to.Query()
	if end != nil {
		query.Set("reason", string(end.Reason))
	}
	status := http.StatusSeeOther // What a form sent is gone.
	if isRepeatable(r) {
		status = http.StatusFound
		if next := r.URL.RequestURI(); isPathHere(next) && !ambiguous.MatchString(r.URL.EscapedPath()) {
			query.Set("next", next)
		}
	}
	to.RawQuery = query.Encode()
	w.Header().Set("Location", to.String())
	w.WriteHeader(status)
}

// isPathHere says whether a browser takes it for a path of this site: it takes // and /\ for another host.
func isPathHere(text string) bool {
	parsed, err := url.Parse(text)
	return err == nil && strings.HasPrefix(text, "/") && !strings.HasPrefix(text, "//") && !strings.HasPrefix(text, `/\`) && parsed.Host == ""
}

func isRepeatable(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead
}

// isNavigation says whether a person will look at the answer, and not a script, which would take the login page for data.
func isNavigation(r *http.Request) bool {
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return isRepeatable(r) && strings.Contains(r.Header.Get("Accept"), "text/html")
}
