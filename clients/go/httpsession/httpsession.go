// Package httpsession lets an application of net/http be guarded by session-sidecar: a middleware that asks about each request, and
// what a login, a change of rights and a logout have to do.
package httpsession

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	sidecar "session-sidecar"
	"session-sidecar/internal/gate"
)

// Options say how an application's sessions are named and guarded. Only Client is required.
type Options struct {
	Client *sidecar.Client
	// CookieName is the cookie that names the session. Default: "session".
	CookieName string
	// CookiePath and CookieDomain are those that it is set with. Default: "/", and none: this host alone.
	CookiePath   string
	CookieDomain string
	// Insecure sets it without Secure, for development over plain HTTP. Browsers take localhost for secure.
	Insecure bool
	// SameSite is that of the cookie. Default: Lax.
	SameSite http.SameSite
	// LoginURL is a path of this site, always public, to which a navigation is sent whose session is over, with `reason` (such as
	// IDLE_TIMEOUT) and `next`. Empty: everybody is answered 401.
	LoginURL string
	// Public says which requests pass without a session. They are checked, not touched: no time runs. Never true of a path that
	// servers read in two ways. Default: none but LoginURL.
	Public func(*http.Request) bool
	// Passive says which requests are never activity: polls. Default: none; the policy's rules decide by the hints.
	Passive func(*http.Request) bool
}

// Guard guards the sessions of an application.
type Guard struct {
	options Options
	login   *url.URL
}

// New makes a Guard. Errors: *sidecar.InvalidRequestError for an option that is out of its bounds.
func New(options Options) (*Guard, error) {
	g := &Guard{options: options}
	if g.options.Client == nil {
		return nil, &sidecar.InvalidRequestError{Message: "Client: is nil; make one with sidecar.New", Fields: []string{"Client"}}
	}
	if g.options.CookieName == "" {
		g.options.CookieName = "session"
	}
	if g.options.CookiePath == "" {
		g.options.CookiePath = "/"
	}
	if g.options.SameSite == 0 {
		g.options.SameSite = http.SameSiteLaxMode
	}
	if err := g.cookie("x").Valid(); err != nil {
		return nil, &sidecar.InvalidRequestError{Message: "CookieName, CookiePath, CookieDomain: " + err.Error(), Fields: []string{"CookieName"}}
	}
	login, err := url.Parse(g.options.LoginURL)
	if err != nil || (g.options.LoginURL != "" && !isPathHere(g.options.LoginURL)) {
		problem := "LoginURL: must be a path of this site, such as /login"
		return nil, &sidecar.InvalidRequestError{Message: problem, Fields: []string{"LoginURL"}}
	}
	g.login = login
	return g, nil
}

// Middleware asks about each request before `next`. A session that lives is sidecar.FromContext(r.Context()); one that is over is told
// 401 in JSON with the reason, or a navigation is sent to LoginURL with it, and its cookie is taken back; while nobody can know the
// client's fail policy decides, and 503 says so.
func (g *Guard) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		public := g.isPublic(r)
		question := gate.Question{IDs: g.named(r), Public: public, Hints: sidecar.HintsOf(r), NoAlias: true}
		question.Passive = g.options.Passive != nil && g.options.Passive(r)
		verdict, err := gate.Ask(r.Context(), g.options.Client, question)
		if err != nil {
			return // Nobody is there to read an answer.
		}
		if verdict.Cause != nil {
			g.options.Client.Logger().Error("session-sidecar cannot be asked about a request", "error", verdict.Cause)
		}
		if over := overOf(verdict); over {
			g.takeBack(w)
		}
		switch {
		case verdict.Session != nil:
			next.ServeHTTP(w, r.WithContext(sidecar.NewContext(r.Context(), verdict.Session)))
		case public:
			next.ServeHTTP(w, r)
		default:
			g.refuse(w, r, verdict)
		}
	})
}

// overOf says whether the cookie is of no use any more. After a Rotate the browser has a new one, which must stay.
func overOf(verdict gate.Verdict) bool {
	switch answer := verdict.Answer.(type) {
	case *sidecar.Ended:
		return answer.End.Reason != sidecar.RotatedAway
	case *sidecar.Unknown:
		return true
	}
	return false
}

// Paths that servers read in two ways are never public: /static/..;/admin is /admin to some of them.
var ambiguous = regexp.MustCompile(`(?i)//|/\.\.?(/|$)|[;\\]|%(2e|2f|5c|25|00)`)

func (g *Guard) isPublic(r *http.Request) bool {
	path := r.URL.EscapedPath()
	if g.options.LoginURL != "" && path == g.login.EscapedPath() {
		return true
	}
	return g.options.Public != nil && !ambiguous.MatchString(path) && g.options.Public(r)
}

// named are the ids that a request names: one cookie may come with two values, and the second be set by a neighbouring subdomain.
func (g *Guard) named(r *http.Request) []sidecar.ID {
	var ids []sidecar.ID
	for _, cookie := range r.Cookies() {
		id := sidecar.ID(cookie.Value)
		if cookie.Name == g.options.CookieName && (len(ids) == 0 || ids[0] != id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// ---- Login, rotation, logout ----

// Login begins the session of somebody who has just proved who they are, and sets its cookie, before anything is written to w. A session
// that the browser has already goes on under a new id if it is the same person's or nobody's, with both deadlines begun anew; another
// person's is ended. So no id from before a login is of any use after it (session fixation). Errors: those of Create and Rotate; while
// the sidecar is away *sidecar.UnreachableError, whatever the fail policy.
func (g *Guard) Login(w http.ResponseWriter, r *http.Request, options sidecar.CreateOptions) (*sidecar.Session, error) {
	ctx := r.Context()
	asItStands := g.options.CookieName + "=" + string(options.SessionID) + ";"
	if options.SessionID != "" && !strings.HasPrefix(g.cookie(options.SessionID).String(), asItStands) {
		problem := "session_id: has a letter that no cookie can have, such as a comma; choose another id, or leave it to the sidecar"
		return nil, &sidecar.InvalidRequestError{Message: problem, Fields: []string{"session_id"}}
	}
	if ids := g.named(r); len(ids) == 1 && ids[0] != "" {
		rotated, err := g.goOn(ctx, ids[0], options)
		if err != nil {
			return nil, err
		}
		if rotated != nil {
			g.set(w, g.cookie(rotated.ID))
			return &rotated.Session, nil
		}
	}
	created, err := g.options.Client.Create(ctx, options)
	if err != nil {
		return nil, err
	}
	g.set(w, g.cookie(created.ID))
	return &created.Session, nil
}

// goOn rotates the session that was there at a login, or ends it; nil if there is none to go on.
func (g *Guard) goOn(ctx context.Context, id sidecar.ID, options sidecar.CreateOptions) (*sidecar.Rotated, error) {
	answer, err := g.options.Client.Check(ctx, id)
	var invalid *sidecar.InvalidRequestError
	if errors.As(err, &invalid) {
		return nil, nil // Whatever somebody sent.
	}
	if err != nil {
		return nil, err
	}
	switch answer := answer.(type) {
	case *sidecar.Unreachable:
		return nil, &sidecar.UnreachableError{Answer: answer}
	case *sidecar.Live:
		own := answer.Session.Subject
		if !answer.Status.Alias && (own == "" || own == options.Subject) {
			rotated, err := g.options.Client.Rotate(ctx, id, sidecar.RotateOptions{
				NewSessionID: options.SessionID, Subject: options.Subject, Login: true, AuthenticatedAgo: options.AuthenticatedAgo,
				AuthenticationLevel: options.AuthenticationLevel, RequestID: options.RequestID,
			})
			return rotated, unlessOver(err)
		}
		_, err := g.options.Client.End(ctx, id, sidecar.EndOptions{Actor: sidecar.ActorSystem, Note: "somebody else logged in"})
		return nil, unlessOver(err)
	}
	return nil, nil
}

// unlessOver is an error but those that say that there is no session any more.
func unlessOver(err error) error {
	var (
		ended   *sidecar.EndedError
		unknown *sidecar.UnknownError
	)
	if errors.As(err, &ended) || errors.As(err, &unknown) {
		return nil
	}
	return err
}

// Rotate gives the session of a request a new id, such as after a change of rights, and sets its cookie, before anything is written to
// w. Its limits stay. Errors: those of sidecar.Client.Rotate; of a request without a session *sidecar.InvalidRequestError.
func (g *Guard) Rotate(w http.ResponseWriter, r *http.Request) (*sidecar.Session, error) {
	ids := g.named(r)
	if len(ids) != 1 {
		return nil, &sidecar.InvalidRequestError{Message: "the request names no session", Fields: []string{"session_id"}}
	}
	rotated, err := g.options.Client.Rotate(r.Context(), ids[0], sidecar.RotateOptions{})
	if err != nil {
		return nil, err
	}
	g.set(w, g.cookie(rotated.ID))
	return &rotated.Session, nil
}

// Logout ends the session of a request, and takes its cookie back, before anything is written to w. That there is none is no error. If
// it fails the cookie is taken back all the same, but the session lives on until its timeout: tell the person.
func (g *Guard) Logout(w http.ResponseWriter, r *http.Request) error {
	g.takeBack(w)
	for _, id := range g.named(r) {
		_, err := g.options.Client.End(r.Context(), id, sidecar.EndOptions{})
		var invalid *sidecar.InvalidRequestError
		if err := unlessOver(err); err != nil && !errors.As(err, &invalid) {
			return err
		}
	}
	return nil
}

// ---- Cookies ----

// cookie goes with the browser: it has no age. The limits are the sidecar's affair.
func (g *Guard) cookie(id sidecar.ID) *http.Cookie {
	return &http.Cookie{
		Name: g.options.CookieName, Value: string(id), Path: g.options.CookiePath, Domain: g.options.CookieDomain, Secure: !g.options.Insecure, HttpOnly: true,
		SameSite: g.options.SameSite,
	}
}

func (g *Guard) takeBack(w http.ResponseWriter) {
	gone := g.cookie("")
	gone.MaxAge = -1
	g.set(w, gone)
}

// set sets the cookie in the place of what was set for it before.
func (g *Guard) set(w http.ResponseWriter, cookie *http.Cookie) {
	var kept []string
	for _, line := range w.Header()["Set-Cookie"] {
		if !strings.HasPrefix(line, g.options.CookieName+"=") {
			kept = append(kept, line)
		}
	}
	w.Header()["Set-Cookie"] = append(kept, cookie.String())
}
