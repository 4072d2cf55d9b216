package fake_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	sidecar "session-sidecar"
	"session-sidecar/fake"
	"session-sidecar/sidecartest"
)

var ctx = context.Background()

func create(t *testing.T, f *fake.Sidecar, options sidecar.CreateOptions) *sidecar.Created {
	t.Helper()
	created, err := f.Client().Create(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func touch(t *testing.T, f *fake.Sidecar, id sidecar.ID) sidecar.Answer {
	t.Helper()
	answer, err := f.Client().Touch(ctx, id, sidecar.TouchOptions{Activity: sidecar.ActivityUser})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func next[E sidecar.Event](t *testing.T, watch *sidecar.Watch) E {
	t.Helper()
	patient, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	event, err := watch.Next(patient)
	wanted, is := event.(E)
	if err != nil || !is {
		t.Fatalf("%T was expected, not %#v, %v", wanted, event, err)
	}
	return wanted
}

func watch(t *testing.T, f *fake.Sidecar, options sidecar.WatchOptions) *sidecar.Watch {
	t.Helper()
	watch, err := f.Client().Watch(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(watch.Close)
	return watch
}

func TestEachThingHappensAtItsOwnTime(t *testing.T) {
	f := fake.Start(t, fake.Policy(`idle_timeout = "15m"`+"\n"+`warn_before = ["2m"]`))
	began := f.Now()
	created := create(t, f, sidecar.CreateOptions{Subject: "ada"})
	w := watch(t, f, sidecar.WatchOptions{Subject: "ada"})
	next[*sidecar.Snapshot](t, w)
	next[*sidecar.SnapshotEnd](t, w)
	if now := f.Advance(24 * time.Hour); !now.Equal(began.Add(24*time.Hour)) || !f.Now().Equal(now) {
		t.Error(now)
	}
	if near := next[*sidecar.Warning](t, w); !near.EmitTime.Equal(began.Add(13*time.Minute)) || near.ExpiresIn != 2*time.Minute {
		t.Errorf("%+v", near)
	}
	if over := next[*sidecar.SessionEnded](t, w); !over.EmitTime.Equal(began.Add(15 * time.Minute)) {
		t.Errorf("%+v", over)
	}
	if ended := touch(t, f, created.ID).(*sidecar.Ended); ended.End.Reason != sidecar.IdleTimeout {
		t.Errorf("%+v", ended)
	}
}

func TestItsClockRenewsHolds(t *testing.T) {
	f := fake.Start(t)
	id := create(t, f, sidecar.CreateOptions{}).ID
	hold, err := f.Client().Holding(ctx, id, sidecar.HoldingOptions{Purpose: "report"})
	if err != nil {
		t.Fatal(err)
	}
	began := f.Now()
	f.Advance(90 * time.Minute)
	if live := touch(t, f, id).(*sidecar.Live); live.ExpiresIn() < 15*time.Minute {
		t.Error(live.ExpiresIn())
	}
	answer, err := f.Client().Check(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if holds := answer.(*sidecar.Live).Session.Holds; len(holds) != 1 || !holds[0].StartTime.Equal(began) {
		t.Errorf("it lapsed: %+v", holds)
	}
	hold.Release()
	f.Advance(14 * time.Minute)
	touch(t, f, id)
	f.Advance(16 * time.Minute)
	if touch(t, f, id).Allowed() {
		t.Error("nothing renews a hold that was released")
	}
}

func TestAHoldIsToldOfTheEndAtItsNextRenewal(t *testing.T) {
	f := fake.Start(t, fake.Policy(`absolute_timeout = "30m"`))
	hold, err := f.Client().Holding(ctx, create(t, f, sidecar.CreateOptions{}).ID, sidecar.HoldingOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.Advance(29 * time.Minute)
	if hold.Err() != nil {
		t.Error(hold.Err())
	}
	f.Advance(2 * time.Minute)
	<-hold.Done()
	if over := hold.Ended().(*sidecar.Ended); over.End.Reason != sidecar.AbsoluteTimeout {
		t.Error(over)
	}
	hold.Release()
}

func TestTheTestClockOfTheProgramMovesItToo(t *testing.T) {
	f := fake.Start(t)
	now := f.Now()
	if at, err := sidecartest.Advance(ctx, f.Client(), time.Minute); err != nil || !at.Equal(now.Add(time.Minute)) {
		t.Error(at, err)
	}
	for _, by := range []time.Duration{0, -time.Second, 366 * 24 * time.Hour} {
		if _, err := sidecartest.Advance(ctx, f.Client(), by); err == nil {
			t.Error(by)
		}
	}
}

func TestItServesItsTenants(t *testing.T) {
	f := fake.Start(t, fake.Tenants("shop", "blog"))
	shop, blog := f.Client().With(sidecar.WithTenant("shop")), f.Client().With(sidecar.WithTenant("blog"))
	created, err := shop.Create(ctx, sidecar.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := blog.Check(ctx, created.ID); err != nil || answer.Allowed() {
		t.Error(answer, err)
	}
	var foreign *sidecar.NotPermittedError
	if _, err := f.Client().Create(ctx, sidecar.CreateOptions{}); !errors.As(err, &foreign) {
		t.Error(err)
	}
}

func TestSupport(t *testing.T) {
	f := fake.Start(t)
	admin, err := f.Admin()
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	for range 5 {
		create(t, f, sidecar.CreateOptions{Subject: "vera"})
	}
	count := 0
	for _, err := range admin.ListSessions(ctx, sidecar.Filter{Subject: "vera"}, sidecar.ListOptions{PageSize: 2}) {
		if count++; err != nil {
			t.Fatal(err)
		}
	}
	ended, err := admin.EndSessions(ctx, sidecar.Filter{Subject: "vera"}, sidecar.EndSessionsOptions{})
	if err != nil || ended.EndedCount != 5 || count != 5 {
		t.Error(count, ended, err)
	}
	var absent *sidecar.NotPermittedError
	if _, err := admin.Stats(ctx, ""); !errors.As(err, &absent) || absent.Code != "UNIMPLEMENTED" {
		t.Error(err)
	}
}

func TestItDrains(t *testing.T) {
	f := fake.Start(t)
	w := watch(t, f, sidecar.WatchOptions{Everything: true})
	next[*sidecar.SnapshotEnd](t, w)
	f.Drain()
	next[*sidecar.Draining](t, w)
}

func TestATokenOfAnotherFakeBeginsAnew(t *testing.T) {
	f := fake.Start(t)
	w := watch(t, f, sidecar.WatchOptions{Everything: true})
	next[*sidecar.SnapshotEnd](t, w)
	other := watch(t, fake.Start(t), sidecar.WatchOptions{Everything: true, ResumeToken: w.ResumeToken()})
	if anew := next[*sidecar.BeginAnew](t, other); anew.Reason != "RESUME_TOKEN_EXPIRED" {
		t.Error(anew)
	}
}

func TestPoliciesAreThoseOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.toml")
	text := "[policy.default]\nidle_timeout = '1h 30m'\n[policy.bank]\npreset = 'owasp-high-value'\n[door]\ncookies = ['sid']\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f := fake.Start(t, fake.PolicyFile(path))
	if session := create(t, f, sidecar.CreateOptions{}).Session; session.IdleTimeout != 90*time.Minute {
		t.Error(session.IdleTimeout)
	}
	first := create(t, f, sidecar.CreateOptions{Policy: "bank", Subject: "ada"})
	second := create(t, f, sidecar.CreateOptions{Policy: "bank", Subject: "ada"})
	if first.Session.IdleTimeout != 5*time.Minute || len(second.SupersededRefs) != 1 {
		t.Error(first.Session.IdleTimeout, second.SupersededRefs)
	}
}

func TestAPolicyThatCannotBeReadIsRefused(t *testing.T) {
	for _, keys := range []string{
		`idle_timeout = "15 minutos"`, `idle_timeout = 15`, `idle = "15m"`, `idle_timeout = "13h"`, `unmatched = "perhaps"`, `preset = "none"`,
		`warn_before = ["soon"]`, `work_hold = { ttl = "5m" }`, `presence = "perhaps"`, `presence = { max_live = "64" }`, `passive = true` + "\n" + `idle_timeout = "5m"`,
		`rules = [{ name = "a" }]`, `rules = [{ name = "a", verdict = "count", colour = "red" }]`, `max_extensions = "2"`, "\x00",
	} {
		if f, err := fake.New(fake.Policy(keys)); err == nil {
			f.Close()
			t.Error(keys)
		}
	}
	if _, err := fake.New(fake.PolicyFile("no-such-file")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	empty := filepath.Join(t.TempDir(), "policy.toml")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fake.New(fake.PolicyFile(empty)); err == nil {
		t.Error("a file without a policy")
	}
}
