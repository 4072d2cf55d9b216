package sidecar_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sidecar "session-sidecar"
	"session-sidecar/internal/program"
	"session-sidecar/sidecartest"
)

var ctx = context.Background()

// fails says that an error is of a type, and answers it.
func fails[E error](t *testing.T, err error) E {
	t.Helper()
	var wanted E
	if !errors.As(err, &wanted) {
		t.Fatalf("%T was expected, not %v", wanted, err)
	}
	return wanted
}

// is says that an answer is of a type, and answers it.
func is[A sidecar.Answer](t *testing.T, answer sidecar.Answer, err error) A {
	t.Helper()
	wanted, is := answer.(A)
	if err != nil || !is {
		t.Fatalf("%T was expected, not %#v, %v", wanted, answer, err)
	}
	return wanted
}

func create(t *testing.T, client *sidecar.Client, options sidecar.CreateOptions) *sidecar.Created {
	t.Helper()
	created, err := client.Create(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func advance(t *testing.T, client *sidecar.Client, by time.Duration) {
	t.Helper()
	if _, err := sidecartest.Advance(ctx, client, by); err != nil {
		t.Fatal(err)
	}
}

func TestLiveEndedUnknown(t *testing.T) {
	process := program.Start(t)
	for name, target := range map[string]string{"TCP": process.TCP, "a Unix socket": process.UDS, "a URL": "http://" + process.TCP + "/"} {
		t.Run("over "+name, func(t *testing.T) {
			client := program.Client(t, target, sidecar.WithDeadline(program.Patience))
			created := create(t, client, sidecar.CreateOptions{Subject: "ada", Labels: map[string]string{"app": "shop"}})
			answer, err := client.Touch(ctx, created.ID, sidecar.TouchOptions{Activity: sidecar.ActivityUser})
			live := is[*sidecar.Live](t, answer, err)
			if !live.Allowed() || !live.Touch.Counted || live.Touch.Rule != "declared-user" || live.ExpiresIn() < 19*time.Second || live.Expiring() {
				t.Errorf("%+v", live)
			}
			advance(t, client, 12*time.Second)
			answer, err = client.Check(ctx, live.Ref())
			live = is[*sidecar.Live](t, answer, err)
			if !live.Expiring() || live.Session.Subject != "ada" || live.Session.Labels["app"] != "shop" {
				t.Errorf("%+v", live)
			}
			advance(t, client, 10*time.Second)
			answer, err = client.Touch(ctx, created.ID, sidecar.TouchOptions{})
			ended := is[*sidecar.Ended](t, answer, err)
			if ended.Allowed() || ended.End.Reason != sidecar.IdleTimeout || ended.End.Actor != sidecar.ActorPolicy || ended.End.EndTime.IsZero() {
				t.Errorf("%+v", ended)
			}
			answer, err = client.Touch(ctx, program.NeverIssued, sidecar.TouchOptions{})
			if is[*sidecar.Unknown](t, answer, err).Allowed() {
				t.Error("it is not allowed")
			}
		})
	}
}

func TestCommandsFailWithErrorsOfTheirOwn(t *testing.T) {
	client := program.Start(t).Client(t)
	id := create(t, client, sidecar.CreateOptions{}).ID
	if _, err := client.End(ctx, id, sidecar.EndOptions{Reason: sidecar.Revoked, Note: "stolen"}); err != nil {
		t.Fatal(err)
	}
	_, err := client.Extend(ctx, id, sidecar.ExtendOptions{})
	if over := fails[*sidecar.EndedError](t, err); over.Answer.End.Note != "stolen" || over.Answer.End.Reason != sidecar.Revoked {
		t.Errorf("%+v", over.Answer)
	}
	_, err = client.Rotate(ctx, program.NeverIssued, sidecar.RotateOptions{})
	fails[*sidecar.UnknownError](t, err)
	_, err = client.Create(ctx, sidecar.CreateOptions{Policy: "no-such-policy"})
	if refused := fails[*sidecar.RefusedError](t, err); refused.Reason != "POLICY_UNKNOWN" {
		t.Error(refused)
	}
	_, err = client.Touch(ctx, "not an id", sidecar.TouchOptions{})
	if bad := fails[*sidecar.InvalidRequestError](t, err); fmt.Sprint(bad.Fields) != "[session_id]" {
		t.Error(bad)
	}
	_, err = client.With(sidecar.WithTenant("somebody-elses")).Touch(ctx, id, sidecar.TouchOptions{})
	if foreign := fails[*sidecar.NotPermittedError](t, err); foreign.Reason != "CALLER_NOT_ALLOWED" {
		t.Error(foreign)
	}
}

func TestAnEndIsToldOnceAndARetryIsToldTheSame(t *testing.T) {
	client := program.Start(t).Client(t)
	id := create(t, client, sidecar.CreateOptions{}).ID
	for _, want := range []bool{true, true} {
		end, err := client.End(ctx, id, sidecar.EndOptions{RequestID: "logout"})
		if err != nil || end.EndedNow != want || end.End.Reason != sidecar.Logout {
			t.Error(end, err)
		}
	}
	if end, err := client.End(ctx, id, sidecar.EndOptions{}); err != nil || end.EndedNow {
		t.Error(end, err)
	}
}

func TestManyAtOnceHaveOutcomesOfTheirOwn(t *testing.T) {
	client := program.Start(t).Client(t)
	id, gone := create(t, client, sidecar.CreateOptions{}).ID, create(t, client, sidecar.CreateOptions{}).ID
	if _, err := client.End(ctx, gone, sidecar.EndOptions{}); err != nil {
		t.Fatal(err)
	}
	touched, err := client.TouchMany(ctx, []sidecar.Touch{{ID: id}, {ID: gone}, {ID: program.NeverIssued}, {ID: ""}})
	if err != nil || len(touched) != 4 {
		t.Fatal(touched, err)
	}
	is[*sidecar.Live](t, touched[0].Answer, touched[0].Err)
	if ended := is[*sidecar.Ended](t, touched[1].Answer, touched[1].Err); ended.End.Reason != sidecar.Logout {
		t.Error(ended)
	}
	is[*sidecar.Unknown](t, touched[2].Answer, touched[2].Err)
	fails[*sidecar.InvalidRequestError](t, touched[3].Err)
	checked, err := client.CheckMany(ctx, []sidecar.Name{id, gone, sidecar.Ref("no ref")})
	if err != nil || len(checked) != 3 {
		t.Fatal(checked, err)
	}
	is[*sidecar.Live](t, checked[0].Answer, checked[0].Err)
	is[*sidecar.Ended](t, checked[1].Answer, checked[1].Err)
	fails[*sidecar.InvalidRequestError](t, checked[2].Err)
	_, err = client.CheckMany(ctx, nil)
	fails[*sidecar.InvalidRequestError](t, err)
	_, err = client.CheckMany(ctx, []sidecar.Name{nil})
	fails[*sidecar.InvalidRequestError](t, err)
}

func TestWhatTheWireCannotCarryIsNamedAndNotShown(t *testing.T) {
	client := program.Start(t).Client(t)
	for field, call := range map[string]func() error{
		"subject": func() error { _, err := client.Create(ctx, sidecar.CreateOptions{Subject: "\xff"}); return err },
		"labels": func() error {
			_, err := client.Create(ctx, sidecar.CreateOptions{Labels: map[string]string{"a": "\xff"}})
			return err
		},
		"session_id": func() error {
			_, err := client.Touch(ctx, "secret-secret-secret\xff", sidecar.TouchOptions{})
			return err
		},
		"activity": func() error { _, err := client.Touch(ctx, "x", sidecar.TouchOptions{Activity: "WALK"}); return err },
		"reason":   func() error { _, err := client.End(ctx, "x", sidecar.EndOptions{Reason: "WALK"}); return err },
		"kind":     func() error { _, err := client.Hold(ctx, "x", "y", sidecar.HoldOptions{Kind: "WALK"}); return err },
		"scope":    func() error { _, err := client.Watch(sidecar.WatchOptions{}); return err },
		"kinds": func() error {
			_, err := client.Watch(sidecar.WatchOptions{Everything: true, Kinds: []sidecar.EventKind{"WALK"}})
			return err
		},
	} {
		err := call()
		bad := fails[*sidecar.InvalidRequestError](t, err)
		if len(bad.Fields) != 1 || bad.Fields[0] != field || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestACallerWhoHasGoneIsToldSo(t *testing.T) {
	client := program.Client(t, program.BlackHole(t), sidecar.WithDeadline(program.Patience), sidecar.WithFail(sidecar.FailOpen))
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if answer, err := client.Touch(gone, program.NeverIssued, sidecar.TouchOptions{}); !errors.Is(err, context.Canceled) || answer != nil {
		t.Error(answer, err)
	}
}

func TestAClosedClientSaysSo(t *testing.T) {
	client := program.Client(t, program.Nobody(t))
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Touch(ctx, program.NeverIssued, sidecar.TouchOptions{}); !errors.Is(err, sidecar.ErrClosed) {
		t.Error(err)
	}
}

func TestSettingsOutOfBoundsAreRefused(t *testing.T) {
	_, err := sidecar.New("127.0.0.1:1", sidecar.WithDeadline(0))
	fails[*sidecar.InvalidRequestError](t, err)
	t.Setenv("SESSION_SIDECAR_TARGET", "unix:/run/nobody.sock")
	if client := program.Client(t, ""); client.Target() != "unix:/run/nobody.sock" {
		t.Error(client.Target())
	}
}

func TestAnIDIsInNothingThatIsPrinted(t *testing.T) {
	process := program.Start(t)
	client := process.Client(t)
	created := create(t, client, sidecar.CreateOptions{Subject: "ada"})
	secret := string(created.ID)
	hold, err := client.Holding(ctx, created.ID, sidecar.HoldingOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Release()
	watch, err := client.Watch(sidecar.WatchOptions{Sessions: []sidecar.Name{created.ID}})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	event, err := watch.Next(ctx)
	if err != nil || event.(*sidecar.Snapshot).Session.SessionID != created.ID {
		t.Fatal(event, err)
	}
	request := &sidecar.RequestSession{ID: created.ID}
	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("told", "id", created.ID, "created", created, "event", event, "hold", hold, "watch", watch, "request", request)
	}
	for _, value := range []any{
		created.ID, created, *created, hold, watch, *event.(*sidecar.Snapshot), event, request, client, []sidecar.ID{created.ID},
		sidecar.Touch{ID: created.ID}, &sidecar.CreateOptions{SessionID: created.ID}, sidecar.WatchOptions{Sessions: []sidecar.Name{created.ID}},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&log, verb, value)
		}
	}
	if strings.Contains(log.String(), secret) || strings.Contains(log.String(), fmt.Sprintf("%x", secret)) {
		t.Error("an id was printed")
	}
	if told, err := json.Marshal(string(created.ID)); err != nil || !strings.Contains(string(told), secret) {
		t.Error("string(id) is the secret itself")
	}
}

func TestHintsOfARequest(t *testing.T) {
	request := httptest.NewRequest("POST", "http://shop.example:8080/a%20b/c?q=1", nil)
	request.Header.Set("Sec-Fetch-Mode", "navigate")
	request.Header.Set("Sec-Fetch-User", "?1")
	request.Header.Set("Sec-Fetch-Dest", strings.Repeat("x", 65))
	request.Header.Set("Sec-Purpose", "pre\tfetch")
	want := sidecar.Hints{Host: "shop.example", Method: "POST", Path: "/a%20b/c", SecFetchUser: "?1", SecFetchMode: "navigate"}
	if hints := sidecar.HintsOf(request); *hints != want {
		t.Errorf("%+v", hints)
	}
	long := httptest.NewRequest("GET", "/"+strings.Repeat("x", 3000), nil)
	long.Host = "[::1]:80"
	if hints := sidecar.HintsOf(long); len(hints.Path) != 2048 || hints.Host != "[::1]" {
		t.Errorf("%+v", hints)
	}
}
