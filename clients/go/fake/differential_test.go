package fake_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	sidecar "session-sidecar"
	"session-sidecar/fake"
	"session-sidecar/internal/program"
	"session-sidecar/internal/transcript"
	pb "session-sidecar/proto/sessionsidecar/v1"
	"session-sidecar/sidecartest"
)

// The fake and the program, side by side: random histories of calls, on which both must say the same, to the version and the event. The
// clock moves in steps of 7 s, and the fake is asked at the time at which the program says that it answered. What limits of different
// kinds bring is due at different tenths of a second, and none where the transcript rounds: the program's clock goes on by itself, and
// what is due within the same few milliseconds it may judge at once.

const (
	histories = 60
	calls     = 60
	usual     = `
idle_timeout = "50s 300ms"
warn_before = ["15s", "5s"]
absolute_timeout = "5m 100ms"
absolute_warn_before = ["40s", "10s"]
tombstone_ttl = "3m 300ms"
`
	policies = "[policy.default]" + usual + `max_extensions = 2
work_hold = { max_ttl = "25s 700ms", budget = "41s 700ms", max_live = 2 }
presence = { leave_grace = "5s 200ms", lost_grace = "9s 200ms", max_ttl = "23s 700ms", max_live = 2 }
[policy.desk]` + usual + `max_sessions_per_subject = 2
at_subject_cap = "end-oldest"
at_most = true
[policy.ruled]` + usual + `unmatched = "ignore"
max_sessions_per_subject = 2
[[policy.ruled.rules]]
name = "forms"
method = ["POST", "PUT"]
path = "/app/**"
verdict = "count"
[policy.trial]` + usual + `enforce = false
max_extensions = 1
[policy.wall]
passive = true
absolute_timeout = "4m 100ms"
`
)

// side is one of the two.
type side struct {
	client *sidecar.Client
	names  *transcript.Names
	ids    []string
	refs   []string
	watch  *sidecar.Watch
}

// play makes random calls of both.
type play struct {
	t        *testing.T
	rng      *rand.Rand
	fake     *fake.Sidecar
	sides    [2]*side // The program, and the fake.
	prefix   string
	behind   float64 // How many seconds the fake's clock is behind the program's.
	sessions int
	told     []string
}

func TestTheFakeSaysWhatTheProgramSays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.toml")
	if err := os.WriteFile(path, []byte(policies), 0o600); err != nil {
		t.Fatal(err)
	}
	process := program.Start(t, "--policy-file", path)
	happened := map[string]int{}
	for seed := range uint64(histories) {
		f := fake.Start(t, fake.PolicyFile(path))
		p := &play{t: t, rng: rand.New(rand.NewPCG(seed, 1)), fake: f, prefix: fmt.Sprintf("history-%d-", seed)}
		for place, client := range []*sidecar.Client{process.Client(t), f.Client()} {
			w, err := client.Watch(sidecar.WatchOptions{Everything: true, NoInitialState: true, HeartbeatInterval: 5 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			p.sides[place] = &side{client: client, names: transcript.NewNames(), watch: w}
			if event, err := w.Next(ctx); err != nil {
				t.Fatal(event, err)
			}
		}
		at, err := sidecartest.Advance(ctx, p.sides[0].client, time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		p.behind = seconds(at) - seconds(f.Now())
		for range calls {
			p.step()
		}
		p.compareEvents(happened)
		for _, each := range p.sides {
			each.watch.Close()
		}
		if t.Failed() {
			t.Fatalf("seed %d:\n%s", seed, strings.Join(p.told[max(0, len(p.told)-12):], "\n"))
		}
	}
	// Else it would show little.
	for _, kind := range []string{"warning", "cleared", "ended"} {
		if happened[kind] < histories {
			t.Error("too little happened:", happened)
		}
	}
}

func seconds(at time.Time) float64 { return float64(at.UnixNano()) / 1e9 }

func (p *play) perhaps(chance float64) bool { return p.rng.Float64() < chance }

func one[T any](p *play, of ...T) T { return of[p.rng.IntN(len(of))] }

func (p *play) span(seconds ...float64) *durationpb.Duration {
	return durationpb.New(time.Duration(one(p, seconds...) * float64(time.Second)))
}

// step moves the clock, or makes one call.
func (p *play) step() {
	if p.perhaps(0.3) {
		by := time.Duration(7*(1+p.rng.IntN(4))) * time.Second
		for _, each := range p.sides {
			if _, err := sidecartest.Advance(ctx, each.client, by); err != nil {
				p.t.Fatal(err)
			}
		}
		p.told = append(p.told, fmt.Sprint("advance ", by))
		return
	}
	verb, build := p.call()
	var answers [2]string
	for place, each := range p.sides {
		answers[place] = p.ask(each, verb, build(place))
	}
	p.told = append(p.told, fmt.Sprintf("%s %v\n%s", verb, build(0), answers[0]))
	if answers[0] != answers[1] {
		p.t.Errorf("%s %v\nthe program:\n%s\nthe fake:\n%s", verb, build(0), answers[0], answers[1])
	}
}

// ask answers the transcript of a call, in which both call a session by the same name.
func (p *play) ask(s *side, verb string, request proto.Message) string {
	answer := responses[verb]()
	if err := s.client.Conn().Invoke(ctx, "/sessionsidecar.v1.SessionService/"+verb, request, answer); err != nil {
		return strings.Join(s.names.Failed(transcript.Decoded(err)), "\n")
	}
	if made, is := answer.(interface {
		GetSessionId() string
		GetSession() *pb.Session
	}); is && !slices.Contains(s.ids, made.GetSessionId()) {
		s.names.Learn(fmt.Sprint("session-", len(s.ids)), made.GetSessionId(), made.GetSession().GetStatus().GetSessionRef())
		s.ids, s.refs = append(s.ids, made.GetSessionId()), append(s.refs, made.GetSession().GetStatus().GetSessionRef())
	}
	if now, told := transcript.FindNow(answer.ProtoReflect()); told && s == p.sides[0] {
		if later := now - p.behind - seconds(p.fake.Now()); later > 0 {
			p.fake.Advance(time.Duration(later * float64(time.Second)))
		}
	}
	return wallClock.ReplaceAllString(strings.Join(s.names.Flatten(answer.ProtoReflect()), "\n"), "<time>")
}

// wallClock is a time of a message that has none of its own to tell it by.
var wallClock = regexp.MustCompile(`now \d{5,}h\w*`)

var verbs = []string{
	"Create", "Create", "Create", "Create", "Touch", "Touch", "Touch", "Touch", "Touch", "BatchTouch", "BatchTouch", "Check", "Check", "Check", "Extend", "Extend",
	"Extend", "Hold", "Hold", "Hold", "Hold", "Release", "Release", "Rotate", "Rotate", "End",
}

var responses = map[string]func() proto.Message{
	"Create": func() proto.Message { return new(pb.CreateResponse) }, "Touch": func() proto.Message { return new(pb.TouchResponse) },
	"Check": func() proto.Message { return new(pb.CheckResponse) }, "Extend": func() proto.Message { return new(pb.ExtendResponse) },
	"Hold": func() proto.Message { return new(pb.HoldResponse) }, "Release": func() proto.Message { return new(pb.ReleaseResponse) },
	"Rotate": func() proto.Message { return new(pb.RotateResponse) }, "End": func() proto.Message { return new(pb.EndResponse) },
	"BatchTouch": func() proto.Message { return new(pb.BatchTouchResponse) },
}

// requestID is one that may have come before. It belongs to the history: the program outlives it.
func (p *play) requestID() string {
	if p.perhaps(0.6) {
		return ""
	}
	return p.prefix + one(p, "a", "b", "c")
}

func (p *play) touch(id string) *pb.TouchRequest {
	request := &pb.TouchRequest{SessionId: id, Activity: one(p, pb.Activity_ACTIVITY_UNSPECIFIED, pb.Activity_ACTIVITY_USER, pb.Activity_ACTIVITY_BACKGROUND)}
	if p.perhaps(0.2) {
		request.IdleFor = p.span(0, 7, 21, 70)
	}
	if p.perhaps(0.5) {
		request.Hints = &pb.TouchHints{
			Method: one(p, "", "GET", "POST"), Path: one(p, "", "/app/cart", "/poll"), SecFetchMode: one(p, "", "navigate", "cors"),
			SecFetchUser: one(p, "", "?1"), SecFetchDest: one(p, "", "empty", "document"), SecPurpose: one(p, "", "", "prefetch;prerender"),
			PageVisibility: one(p, pb.PageVisibility_PAGE_VISIBILITY_UNSPECIFIED, pb.PageVisibility_PAGE_VISIBILITY_VISIBLE, pb.PageVisibility_PAGE_VISIBILITY_HIDDEN),
			InputReport:    p.perhaps(0.2),
		}
	}
	return request
}

// call draws a call, and how it is made of one side: the sessions have other ids there.
func (p *play) call() (string, func(place int) proto.Message) {
	known := len(p.sides[0].ids)
	which := -1
	if known > 0 && p.perhaps(0.97) {
		which = max(0, known-1-p.rng.IntN(6))
	}
	id := func(place int) string {
		if which < 0 || which >= len(p.sides[place].ids) {
			return string(program.NeverIssued)
		}
		return p.sides[place].ids[which]
	}
	ref := func(place int) string {
		if which < 0 || which >= len(p.sides[place].refs) {
			return strings.Repeat("A", 22)
		}
		return p.sides[place].refs[which]
	}
	// Whatever is drawn is the same for both.
	with := func(request proto.Message) func(int) proto.Message {
		return func(place int) proto.Message {
			own := proto.Clone(request)
			own.ProtoReflect().Set(own.ProtoReflect().Descriptor().Fields().ByName("session_id"), protoreflect.ValueOf(id(place)))
			return own
		}
	}
	hold := one(p, "a", "b", "c")
	switch verb := one(p, verbs...); verb {
	case "Create":
		request := &pb.CreateRequest{
			Subject: p.prefix + one(p, "ada", "eve"), Policy: one(p, "", "", "desk", "ruled", "trial", "wall"), RequestId: p.requestID(),
			AuthenticationLevel: one(p, "", "aal2"),
		}
		if p.perhaps(0.3) {
			p.sessions++
			request.SessionId = fmt.Sprint("an-own-id-of-", p.prefix, p.sessions-p.rng.IntN(2))
		}
		if p.perhaps(0.3) {
			request.Labels = map[string]string{"app": one(p, "shop", "blog")}
		}
		if p.perhaps(0.2) {
			request.IdleTimeout = p.span(30.3, 45.3, 60.3)
		}
		if p.perhaps(0.2) {
			request.AbsoluteTimeout = p.span(60.1, 200.1, 400.1)
		}
		if p.perhaps(0.2) {
			request.AuthenticatedAgo = p.span(0, 77, 280, 350)
		}
		if p.perhaps(0.2) {
			request.IdleFor = p.span(0, 7, 42, 63)
		}
		return verb, func(int) proto.Message { return request }
	case "Touch":
		return verb, with(p.touch(""))
	case "BatchTouch":
		first, second := p.touch(""), p.touch(string(program.NeverIssued))
		return verb, func(place int) proto.Message {
			own := proto.Clone(first).(*pb.TouchRequest)
			own.SessionId = id(place)
			return &pb.BatchTouchRequest{Touches: []*pb.TouchRequest{own, second, own}}
		}
	case "Check":
		byRef := p.perhaps(0.4)
		return verb, func(place int) proto.Message {
			if byRef {
				return &pb.CheckRequest{Name: &pb.CheckRequest_SessionRef{SessionRef: ref(place)}}
			}
			return &pb.CheckRequest{Name: &pb.CheckRequest_SessionId{SessionId: id(place)}}
		}
	case "Extend":
		request := &pb.ExtendRequest{RequestId: p.requestID()}
		if p.perhaps(0.5) {
			request.WantedDuration = p.span(20.3, 70.3, 400.3)
		}
		return verb, with(request)
	case "Hold":
		request := &pb.HoldRequest{
			HoldId: hold, Kind: one(p, pb.HoldKind_HOLD_KIND_WORK, pb.HoldKind_HOLD_KIND_PRESENCE), Ttl: p.span(10.7, 20.7, 60.7), Purpose: one(p, "", "report"),
		}
		return verb, with(request)
	case "Release":
		return verb, with(&pb.ReleaseRequest{HoldId: hold})
	case "Rotate":
		request := &pb.RotateRequest{RequestId: p.requestID()}
		if p.perhaps(0.5) {
			request.AuthenticatedAgo = p.span(0, 7, 320)
			request.AuthenticationLevel = one(p, "", "aal2")
		}
		if p.perhaps(0.4) {
			request.Subject = proto.String(p.prefix + one(p, "ada", "eve"))
		}
		if p.perhaps(0.3) {
			p.sessions++
			request.NewSessionId = fmt.Sprint("an-own-id-of-", p.prefix, p.sessions-p.rng.IntN(3))
		}
		return verb, with(request)
	default:
		reason := one(p, pb.EndReason_END_REASON_UNSPECIFIED, pb.EndReason_END_REASON_REVOKED)
		return verb, with(&pb.EndRequest{Reason: reason, Note: one(p, "", "stolen"), RequestId: p.requestID()})
	}
}

// compareEvents compares what both have told: of each session in its order, for two that are due at the same time may come in either.
func (p *play) compareEvents(happened map[string]int) {
	marker := p.prefix + "marker"
	var all [2]map[string][]string
	for place, each := range p.sides {
		created, err := each.client.Create(ctx, sidecar.CreateOptions{Subject: marker})
		if err == nil {
			_, err = each.client.End(ctx, created.ID, sidecar.EndOptions{})
		}
		if err != nil {
			p.t.Fatal(err)
		}
		all[place] = map[string][]string{}
		for {
			event, err := each.watch.Next(ctx)
			if err != nil {
				p.t.Fatal(err)
			}
			about, told := describe(event)
			if about.Subject == marker {
				break
			}
			// The program goes on with sessions of histories before this one.
			if i := slices.Index(each.refs, string(about.SessionRef)); i >= 0 {
				name := fmt.Sprint("session-", i)
				all[place][name] = append(all[place][name], fmt.Sprintf("version %d of %s: %s", about.Version, strings.TrimPrefix(about.Subject, p.prefix), told))
			}
		}
	}
	for name, told := range all[0] {
		for _, each := range told {
			happened[strings.Fields(each)[4]]++
		}
		if other := all[1][name]; !slices.Equal(told, other) {
			p.t.Errorf("%s\nthe program:\n%s\nthe fake:\n%s", name, strings.Join(told, "\n"), strings.Join(other, "\n"))
		}
	}
}

func describe(event sidecar.Event) (sidecar.EventSession, string) {
	switch event := event.(type) {
	case *sidecar.Warning:
		return event.Session, fmt.Sprint("warning ", event.Limit, event.Point, event.ExpiresIn.Round(time.Second), event.CanExtend)
	case *sidecar.Cleared:
		return event.Session, fmt.Sprint("cleared ", event.Limit, event.Cause, event.ExpiresIn.Round(time.Second))
	case *sidecar.SessionEnded:
		end := event.End
		return event.Session, fmt.Sprint("ended ", end.Reason, end.Actor, end.Note, event.EmitTime.Sub(event.CreateTime).Round(time.Second))
	case *sidecar.Snapshot:
		return event.Session, fmt.Sprint("snapshot ", event.Status.State)
	}
	return sidecar.EventSession{}, fmt.Sprintf("%T", event)
}
