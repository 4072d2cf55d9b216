package sidecar_test

import (
	"testing"
	"time"

	sidecar "session-sidecar"
	"session-sidecar/internal/program"
)

func desk(t *testing.T, target string) *sidecar.Admin {
	t.Helper()
	admin, err := sidecar.NewAdmin(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close() })
	return admin
}

func TestSupportListsAndEndsSessions(t *testing.T) {
	process := program.Start(t)
	client, admin := process.Client(t), desk(t, process.TCP)
	var phone, laptop *sidecar.Created
	for range 5 {
		phone = create(t, client, sidecar.CreateOptions{Subject: "vera", Labels: map[string]string{"device": "phone"}})
	}
	laptop = create(t, client, sidecar.CreateOptions{Subject: "vera", Labels: map[string]string{"device": "laptop"}})
	listed := map[sidecar.Ref]bool{}
	for session, err := range admin.ListSessions(ctx, sidecar.Filter{Subject: "vera"}, sidecar.ListOptions{PageSize: 2, ActorID: "desk-7"}) {
		if err != nil {
			t.Fatal(err)
		}
		listed[session.Status.SessionRef] = true
	}
	if len(listed) != 6 {
		t.Error(listed)
	}
	for range admin.ListSessions(ctx, sidecar.Filter{Subject: "vera"}, sidecar.ListOptions{PageSize: 2}) {
		break // Whoever leaves early asks no more.
	}
	counted, err := admin.EndSessions(ctx, sidecar.Filter{Subject: "vera"}, sidecar.EndSessionsOptions{DryRun: true})
	if err != nil || counted.MatchedCount != 6 || counted.EndedCount != 0 {
		t.Error(counted, err)
	}
	filter := sidecar.Filter{Subject: "vera", States: []sidecar.State{sidecar.StateActive}}
	ended, err := admin.EndSessions(ctx, filter, sidecar.EndSessionsOptions{
		Excepted: []sidecar.Name{laptop.ID}, ActorID: "desk-7", Note: "phone was stolen",
	})
	if err != nil || ended.EndedCount != 5 || len(ended.SessionRefs) != 5 {
		t.Error(ended, err)
	}
	answer, err := client.Touch(ctx, phone.ID, sidecar.TouchOptions{})
	if over := is[*sidecar.Ended](t, answer, err); over.End.Reason != sidecar.Revoked || over.End.ActorID != "desk-7" {
		t.Errorf("%+v", over)
	}
	answer, err = client.Touch(ctx, laptop.ID, sidecar.TouchOptions{})
	is[*sidecar.Live](t, answer, err)
}

func TestSupportExplainsAndCounts(t *testing.T) {
	process := program.Start(t)
	client, admin := process.Client(t), desk(t, process.UDS)
	created := create(t, client, sidecar.CreateOptions{Subject: "ada"})
	advance(t, client, 30*time.Second)
	byID, err := admin.Explain(ctx, created.ID, "desk-7")
	byRef, err2 := admin.Explain(ctx, created.Session.Status.SessionRef, "")
	life, err3 := admin.ExplainSubject(ctx, "ada", time.Time{}, time.Time{}, "")
	for _, each := range []*sidecar.Explained{byID, byRef, life} {
		if err != nil || err2 != nil || err3 != nil || len(each.Explanations) != 1 || each.Explanations[0].GetSummary() == "" || each.Truncated {
			t.Fatal(each, err, err2, err3)
		}
	}
	policies, err := admin.ListPolicies(ctx, "")
	if err != nil || len(policies.GetPolicies()) == 0 || policies.GetPolicies()[0].GetIdleTimeout().AsDuration() != 20*time.Second {
		t.Error(policies, err)
	}
	stats, err := admin.Stats(ctx, "")
	if err != nil || stats.Reasons[sidecar.IdleTimeout] != 1 || stats.States[sidecar.StateEnded] != 1 {
		t.Errorf("%+v %v", stats, err)
	}
}

func TestSupportIsToldWhatIsWrong(t *testing.T) {
	admin := desk(t, program.Start(t).TCP)
	_, err := admin.EndSessions(ctx, sidecar.Filter{}, sidecar.EndSessionsOptions{})
	fails[*sidecar.InvalidRequestError](t, err)
	for _, filter := range []sidecar.Filter{{States: []sidecar.State{"WALKING"}}, {States: []sidecar.State{sidecar.StateUnknown}}} {
		for session, err := range admin.ListSessions(ctx, filter, sidecar.ListOptions{}) {
			fails[*sidecar.InvalidRequestError](t, err)
			if session != nil {
				t.Error(session)
			}
		}
	}
	_, err = admin.With(sidecar.WithTenant("somebody-elses")).Stats(ctx, "")
	fails[*sidecar.NotPermittedError](t, err)
	_, err = desk(t, program.Nobody(t)).Stats(ctx, "")
	fails[*sidecar.UnreachableError](t, err)
}
