package httpsession_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sidecar "session-sidecar"
	"session-sidecar/httpsession"
	"session-sidecar/internal/program"
	"session-sidecar/sidecartest"
)

var ctx = context.Background()

// site is an application behind the middleware: /login logs in, /logout out, /rights changes the session's id, /static/… is public.
type site struct {
	t      *testing.T
	client *sidecar.Client
	guard  *httpsession.Guard
	server *httptest.Server
	cookie string
}

func newSite(t *testing.T, client *sidecar.Client, change func(*httpsession.Options)) *site {
	t.Helper()
	options := httpsession.Options{
		Client: client, LoginURL: "/login",
		Public:  func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/static/") },
		Passive: func(r *http.Request) bool { return r.URL.Path == "/poll" },
	}
	if change != nil {
		change(&options)
	}
	guard, err := httpsession.New(options)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, client: client, guard: guard}
	s.server = httptest.NewServer(guard.Middleware(http.HandlerFunc(s.serve)))
	t.Cleanup(s.server.Close)
	return s
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	var err error
	switch r.URL.Path {
	case "/login":
		if r.Method == http.MethodPost {
			_, err = s.guard.Login(w, r, sidecar.CreateOptions{Subject: r.FormValue("who")})
		}
	case "/rights":
		_, err = s.guard.Rotate(w, r)
	case "/logout":
		err = s.guard.Logout(w, r)
	default:
		session := sidecar.FromContext(r.Context())
		switch {
		case session == nil:
			_, err = io.WriteString(w, "nobody")
		case session.Live() == nil:
			_, err = io.WriteString(w, "perhaps")
		case session.Live().Touch != nil:
			_, err = io.WriteString(w, session.Live().Touch.Rule)
		default:
			_, err = io.WriteString(w, "checked")
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

type answer struct {
	*http.Response
	body string
	set  *http.Cookie // What the answer sets for the session.
}

// ask makes a request as a browser does, with `headers` in pairs. It keeps the cookie that comes.
func (s *site) ask(method, path string, headers ...string) answer {
	s.t.Helper()
	request, err := http.NewRequest(method, s.server.URL+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.cookie != "" {
		request.Header.Set("Cookie", "theme=dark; session="+s.cookie)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	told := answer{Response: response, body: string(body)}
	for _, each := range response.Cookies() {
		if told.set != nil || each.Name != "session" {
			s.t.Error("one cookie of the session, and no other:", response.Header["Set-Cookie"])
		}
		told.set = each
		s.cookie = each.Value
	}
	return told
}

func (s *site) login(who string) answer {
	s.t.Helper()
	told := s.ask("POST", "/login?who="+who)
	if told.StatusCode != 200 || told.set == nil || s.cookie == "" {
		s.t.Fatal(told.StatusCode, told.body)
	}
	return told
}

func (s *site) advance(by time.Duration) {
	s.t.Helper()
	if _, err := sidecartest.Advance(ctx, s.client, by); err != nil {
		s.t.Fatal(err)
	}
}

func (a answer) json(t *testing.T) (told map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &told); err != nil {
		t.Fatal(a.body, err)
	}
	if a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Cache-Control") != "no-store" {
		t.Error(a.Header)
	}
	return told
}

var navigation = []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-User", "?1"}

func TestTheSessionOfARequest(t *testing.T) {
	s := newSite(t, program.Start(t).Client(t), nil)
	told := s.login("ada")
	if c := told.set; !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.MaxAge != 0 || !c.Expires.IsZero() {
		t.Errorf("%+v", c)
	}
	for path, rule := range map[string]string{"/cart": "user-navigation", "/poll": "declared-background", "/static/site.css": "checked"} {
		if told := s.ask("GET", path, navigation...); told.StatusCode != 200 || told.body != rule || told.set != nil {
			t.Error(path, told.StatusCode, told.body)
		}
	}
	if told := s.ask("GET", "/cart", "Sec-Purpose", "prefetch"); told.body != "prefetch" {
		t.Error(told.body)
	}
}

func TestAPollKeepsNobodyLoggedIn(t *testing.T) {
	s := newSite(t, program.Start(t).Client(t), nil)
	s.login("ada")
	for range 3 {
		s.advance(6 * time.Second)
		if told := s.ask("GET", "/poll"); told.StatusCode != 200 {
			t.Error(told.StatusCode)
		}
	}
	s.advance(3 * time.Second)
	if told := s.ask("GET", "/poll"); told.StatusCode != 401 {
		t.Error(told.StatusCode)
	}
}

func TestAScriptWhoseSessionEndedIsToldWhyInJSON(t *testing.T) {
	s := newSite(t, program.Start(t).Client(t), nil)
	s.login("ada")
	s.advance(21 * time.Second)
	told := s.ask("GET", "/cart", "Sec-Fetch-Mode", "cors")
	body := told.json(t)
	end, _ := body["end"].(map[string]any)
	if told.StatusCode != 401 || body["error"] != "SESSION_ENDED" || body["login_url"] != "/login" || len(body["session_ref"].(string)) != 22 ||
		end["reason"] != "IDLE_TIMEOUT" || end["message"] != "by inactivity" {
		t.Error(told.StatusCode, body)
	}
	if at, err := time.Parse(time.RFC3339, end["end_time"].(string)); err != nil || at.IsZero() {
		t.Error(end)
	}
	if told.set == nil || told.set.MaxAge >= 0 || told.set.Value != "" || told.set.Path != "/" {
		t.Errorf("%+v", told.set)
	}
}

func TestANavigationIsSentToTheLoginPageWithTheReasonAndTheWayBack(t *testing.T) {
	s := newSite(t, program.Start(t).Client(t), nil)
	s.login("ada")
	kept := s.cookie
	s.advance(21 * time.Second)
	for _, each := range []struct {
		method, path, location string
		status                 int
	}{
		{"GET", "/cart?item=3", "/login?next=%2Fcart%3Fitem%3D3&reason=IDLE_TIMEOUT", 302},
		{"POST", "/cart", "/login?reason=IDLE_TIMEOUT", 303},
		{"GET", "//evil.example/x", "/login?reason=IDLE_TIMEOUT", 302},
		{"GET", `/a/%2e%2e/b`, "/login?reason=IDLE_TIMEOUT", 302},
	} {
		s.cookie = kept
		told := s.ask(each.method, each.path, navigation...)
		if told.StatusCode != each.status || told.Header.Get("Location") != each.location || told.set == nil || told.set.MaxAge >= 0 {
			t.Error(each.path, told.StatusCode, told.Header)
		}
	}
	s.cookie = kept
	if told := s.ask("GET", "/cart", "Accept", "text/html,*/*"); told.StatusCode != 302 {
		t.Error("a browser without Sec-Fetch-Mode:", told.StatusCode)
	}
	s.cookie = kept
	if told := s.ask("GET", "/login", navigation...); told.StatusCode != 200 || told.set == nil || told.set.MaxAge >= 0 {
		t.Error("the login page is public, and the cookie goes there too:", told.StatusCode, told.set)
	}
	s.cookie = kept
	if told := s.ask("POST", "/login?who=ada", navigation...); told.StatusCode != 200 || told.set == nil || told.set.Value == "" {
		t.Error("a login sets its cookie once, in the place of the one taken back:", told.Header)
	}
}

func TestASiteWithoutALoginPageAnswers401(t *testing.T) {
	s := newSite(t, program.Start(t).Client(t), func(o *httpsession.Options) { o.LoginURL = "" })
	if told := s.ask("GET", "/cart", navigation...); told.StatusCode != 401 || told.json(t)["error"] != "SESSION_MISSING" {
		t.Error(told.StatusCode, told.body)
	}
}

func TestNobody(t *testing.T) {
	s := newSite(t, program.Start(t).Client(t), nil)
	s.login("ada")
	own := s.cookie
	for cookie, is := range map[string]string{
		"": "SESSION_MISSING", "not%20an%20id,": "SESSION_MISSING", "short": "SESSION_MISSING", own + "; session=another-id-of-somebody": "SESSION_MISSING",
		string(program.NeverIssued): "SESSION_UNKNOWN",
	} {
		s.cookie = cookie
		told := s.ask("GET", "/cart")
		if body := told.json(t); told.StatusCode != 401 || body["error"] != is {
			t.Error(cookie, told.StatusCode, body)
		}
		s.cookie = cookie
		if told := s.ask("GET", "/static/site.css"); told.StatusCode != 200 || told.body != "nobody" {
			t.Error(cookie, told.StatusCode, told.body)
		}
	}
	s.cookie = own + "; session=" + own
	if told := s.ask("GET", "/cart"); told.StatusCode != 200 {
		t.Error("the same value twice is one:", told.StatusCode)
	}
	for _, path := range []string{"/static/../cart", "/static/..;/cart", "/static/%2e%2e/cart", "/static//cart"} {
		s.cookie = ""
		if told := s.ask("GET", path); told.StatusCode != 401 {
			t.Error("no server may take it for public:", path, told.StatusCode)
		}
	}
}

func TestALoginGivesANewID(t *testing.T) {
	s := newSite(t, program.Start(t).Client(t), nil)
	s.login("ada")
	first := sidecar.ID(s.cookie)
	s.login("ada")
	over, err := s.client.Check(ctx, first)
	if ended, is := over.(*sidecar.Ended); !is || err != nil || ended.End.Reason != sidecar.RotatedAway || s.cookie == string(first) {
		t.Error(over, err)
	}
	second := sidecar.ID(s.cookie)
	s.login("eve")
	over, err = s.client.Check(ctx, second)
	if ended, is := over.(*sidecar.Ended); !is || err != nil || ended.End.Reason != sidecar.Logout || ended.End.Actor != sidecar.ActorSystem {
		t.Error("another person's is ended, and none of its labels go on:", over, err)
	}
	live, err := s.client.Check(ctx, sidecar.ID(s.cookie))
	if err != nil || live.(*sidecar.Live).Session.Subject != "eve" || live.(*sidecar.Live).Session.PredecessorRef != "" {
		t.Error(live, err)
	}
	// A session before login is the person's who logs in.
	guest, err := s.client.Create(ctx, sidecar.CreateOptions{Labels: map[string]string{"cart": "17"}})
	if err != nil {
		t.Fatal(err)
	}
	s.cookie = string(guest.ID)
	s.login("ada")
	live, err = s.client.Check(ctx, sidecar.ID(s.cookie))
	if session := live.(*sidecar.Live).Session; err != nil || session.Subject != "ada" || session.Labels["cart"] != "17" {
		t.Error(session, err)
	}
	for _, cookie := range []string{"short", string(program.NeverIssued), string(first)} {
		s.cookie = cookie
		s.login("ada")
	}
}

func TestAnOwnIDMustFitIntoACookie(t *testing.T) {
	s := newSite(t, program.Start(t).Client(t), nil)
	for id, fits := range map[sidecar.ID]bool{"an-own-id-0123456789": true, "an-own-id-0123456,789": false, `an-own-id-"0123456789"`: false} {
		w := httptest.NewRecorder()
		_, err := s.guard.Login(w, httptest.NewRequest("POST", "/login", nil), sidecar.CreateOptions{SessionID: id})
		if (err == nil) != fits || (len(w.Result().Cookies()) == 1) != fits || (fits && w.Result().Cookies()[0].Value != string(id)) {
			t.Error(string(id), err, w.Header())
		}
	}
}

func TestAFormerIDIsOverForCookies(t *testing.T) {
	s := newSite(t, program.Start(t).Client(t), nil)
	s.login("ada")
	former := s.cookie
	if told := s.ask("POST", "/rights"); told.StatusCode != 200 || told.set == nil || s.cookie == former {
		t.Fatal(told.StatusCode, told.body)
	}
	current := s.cookie
	if told := s.ask("GET", "/cart"); told.StatusCode != 200 {
		t.Error(told.StatusCode)
	}
	s.cookie = former
	told := s.ask("GET", "/cart")
	if end, _ := told.json(t)["end"].(map[string]any); told.StatusCode != 401 || end["reason"] != "ROTATED" || told.set != nil {
		t.Error("the browser has a new one, which must stay:", told.StatusCode, told.body, told.set)
	}
	s.cookie = current
	if told := s.ask("GET", "/cart"); told.StatusCode != 200 {
		t.Error(told.StatusCode)
	}
}

func TestALogout(t *testing.T) {
	s := newSite(t, program.Start(t).Client(t), nil)
	s.login("ada")
	id := sidecar.ID(s.cookie)
	if told := s.ask("POST", "/logout"); told.StatusCode != 200 || told.set == nil || told.set.MaxAge >= 0 {
		t.Error(told.StatusCode, told.set)
	}
	over, err := s.client.Check(ctx, id)
	if ended, is := over.(*sidecar.Ended); !is || err != nil || ended.End.Reason != sidecar.Logout || ended.End.Actor != sidecar.ActorUser {
		t.Error(over, err)
	}
	recorder := httptest.NewRecorder()
	for _, cookie := range []string{"", "session=short", "session=" + string(program.NeverIssued), "session=" + string(id)} {
		request := httptest.NewRequest("POST", "/logout", nil)
		request.Header.Set("Cookie", cookie)
		if err := s.guard.Logout(recorder, request); err != nil {
			t.Error("there is none, and that is no error:", cookie, err)
		}
	}
	var bad *sidecar.InvalidRequestError
	if _, err := s.guard.Rotate(recorder, httptest.NewRequest("POST", "/", nil)); !errors.As(err, &bad) {
		t.Error(err)
	}
}

func TestWhileNobodyCanKnowTheFailPolicyDecides(t *testing.T) {
	quiet := sidecar.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))
	client := program.Client(t, program.Nobody(t), quiet)
	closed, open := newSite(t, client, nil), newSite(t, client.With(sidecar.WithFail(sidecar.FailOpen)), nil)
	closed.cookie, open.cookie = string(program.NeverIssued), string(program.NeverIssued)
	told := closed.ask("GET", "/cart")
	if told.StatusCode != 503 || told.json(t)["error"] != "UNAVAILABLE" || told.Header.Get("Retry-After") != "1" || told.set != nil {
		t.Error(told.StatusCode, told.body, told.Header)
	}
	told = closed.ask("GET", "/cart", navigation...)
	if told.StatusCode != 503 || !strings.HasPrefix(told.Header.Get("Content-Type"), "text/plain") || told.set != nil {
		t.Error(told.StatusCode, told.body)
	}
	if told := closed.ask("GET", "/static/site.css"); told.StatusCode != 200 || told.body != "nobody" {
		t.Error("what is public is public:", told.StatusCode, told.body)
	}
	if told := open.ask("GET", "/cart"); told.StatusCode != 200 || told.body != "perhaps" {
		t.Error(told.StatusCode, told.body)
	}
	if told := open.ask("POST", "/login?who=ada"); told.StatusCode != 503 || told.set != nil {
		t.Error("nobody can log in:", told.StatusCode, told.set)
	}
	if told := open.ask("POST", "/logout"); told.StatusCode != 503 || told.set == nil {
		t.Error("the cookie is taken back all the same:", told.StatusCode, told.set)
	}
}

func TestAMistakeInTheConfigurationIsNoLogout(t *testing.T) {
	var log strings.Builder
	client := program.Start(t).Client(t, sidecar.WithTenant("somebody-elses"), sidecar.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	s := newSite(t, client.With(sidecar.WithFail(sidecar.FailOpen)), nil)
	s.cookie = string(program.NeverIssued)
	if told := s.ask("GET", "/cart"); told.StatusCode != 503 || told.set != nil {
		t.Error(told.StatusCode, told.set)
	}
	if !strings.Contains(log.String(), "CALLER_NOT_ALLOWED") || strings.Contains(log.String(), string(program.NeverIssued)) {
		t.Error(log.String())
	}
}

func TestOptionsOutOfBoundsAreRefused(t *testing.T) {
	client := program.Client(t, program.Nobody(t))
	for name, options := range map[string]httpsession.Options{
		"Client":     {},
		"CookieName": {Client: client, CookieName: "a b"},
		"LoginURL":   {Client: client, LoginURL: "https://elsewhere.example/login"},
	} {
		_, err := httpsession.New(options)
		var bad *sidecar.InvalidRequestError
		if !errors.As(err, &bad) || bad.Fields[0] != name || !strings.Contains(err.Error(), name) {
			t.Error(name, err)
		}
	}
	if _, err := httpsession.New(httpsession.Options{Client: client, LoginURL: "//elsewhere.example"}); err == nil {
		t.Error("a browser takes it for another host")
	}
}
