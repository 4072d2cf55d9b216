package sidecar_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	sidecar "session-sidecar"
	"session-sidecar/internal/program"
)

func watch(t *testing.T, client *sidecar.Client, options sidecar.WatchOptions) *sidecar.Watch {
	t.Helper()
	watch, err := client.Watch(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(watch.Close)
	return watch
}

// next is the next event, which is of a type.
func next[E sidecar.Event](t *testing.T, watch *sidecar.Watch) E {
	t.Helper()
	patient, cancel := context.WithTimeout(ctx, program.Patience)
	defer cancel()
	event, err := watch.Next(patient)
	wanted, is := event.(E)
	if err != nil || !is {
		t.Fatalf("%T was expected, not %#v, %v", wanted, event, err)
	}
	return wanted
}

func end(t *testing.T, client *sidecar.Client, id sidecar.ID) {
	t.Helper()
	if _, err := client.End(ctx, id, sidecar.EndOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestAWatchTellsALife(t *testing.T) {
	client := program.Start(t).Client(t)
	created := create(t, client, sidecar.CreateOptions{Subject: "ada"})
	w := watch(t, client, sidecar.WatchOptions{Sessions: []sidecar.Name{created.ID}})
	if first := next[*sidecar.Snapshot](t, w); first.Status.State != sidecar.StateActive || first.Session.SessionID != created.ID || w.ResumeToken() != "" {
		t.Errorf("%+v", first)
	}
	if whole := next[*sidecar.SnapshotEnd](t, w); whole.SnapshotCount != 1 || w.ResumeToken() == "" || !w.Connected() {
		t.Errorf("%+v", whole)
	}
	advance(t, client, 11*time.Second)
	if near := next[*sidecar.Warning](t, w); near.Limit != sidecar.LimitIdle || near.Point != 10*time.Second || !near.CanExtend {
		t.Errorf("%+v", near)
	}
	if _, err := client.Extend(ctx, created.ID, sidecar.ExtendOptions{}); err != nil {
		t.Fatal(err)
	}
	if stays := next[*sidecar.Cleared](t, w); stays.Cause != sidecar.ClearedExtended {
		t.Errorf("%+v", stays)
	}
	rotated, err := client.Rotate(ctx, created.ID, sidecar.RotateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	old := created.Session.Status.SessionRef
	told := map[reflect.Type]sidecar.Event{}
	for range 2 {
		event := next[sidecar.Event](t, w)
		told[reflect.TypeOf(event)] = event
	}
	goesOn := told[reflect.TypeFor[*sidecar.Snapshot]()].(*sidecar.Snapshot)
	over := told[reflect.TypeFor[*sidecar.SessionEnded]()].(*sidecar.SessionEnded)
	if goesOn.PredecessorRef != old || over.End.Reason != sidecar.RotatedAway || over.End.SuccessorRef != rotated.Session.Status.SessionRef {
		t.Errorf("%+v %+v", goesOn, over)
	}
	end(t, client, rotated.ID)
	if over := next[*sidecar.SessionEnded](t, w); over.End.Reason != sidecar.Logout {
		t.Errorf("%+v", over)
	}
}

func TestAWatchGoesOnAfterTheCallersContextIsDone(t *testing.T) {
	client := program.Start(t).Client(t)
	w := watch(t, client, sidecar.WatchOptions{Subject: "ada"})
	next[*sidecar.SnapshotEnd](t, w)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if event, err := w.Next(gone); !errors.Is(err, context.Canceled) {
		t.Error(event, err)
	}
	end(t, client, create(t, client, sidecar.CreateOptions{Subject: "ada"}).ID)
	next[*sidecar.SessionEnded](t, w)
}

func TestAClosedWatchSaysSo(t *testing.T) {
	process := program.Start(t)
	w := watch(t, process.Client(t), sidecar.WatchOptions{Everything: true})
	next[*sidecar.SnapshotEnd](t, w)
	if count := process.Metric(t, "watchers"); count != 1 {
		t.Error(count)
	}
	w.Close()
	for range 2 {
		if event, err := w.Next(ctx); !errors.Is(err, sidecar.ErrClosed) {
			t.Error(event, err)
		}
	}
	for event, err := range w.Events(ctx) {
		if !errors.Is(err, sidecar.ErrClosed) {
			t.Error(event, err)
		}
	}
	program.Eventually(t, "the stream is closed", func() bool { return process.Metric(t, "watchers") == 0 })
	never := watch(t, process.Client(t), sidecar.WatchOptions{Everything: true})
	never.Close()
	if event, err := never.Next(ctx); !errors.Is(err, sidecar.ErrClosed) {
		t.Error(event, err)
	}
}

func TestAWatchThatMayNotBeSaysSo(t *testing.T) {
	client := program.Start(t).Client(t, sidecar.WithTenant("somebody-elses"))
	w := watch(t, client, sidecar.WatchOptions{WholeTenant: true})
	for range 2 {
		_, err := w.Next(ctx)
		fails[*sidecar.NotPermittedError](t, err)
	}
	hasty := watch(t, client.With(sidecar.WithTenant("")), sidecar.WatchOptions{Everything: true, HeartbeatInterval: time.Millisecond})
	_, err := hasty.Next(ctx)
	fails[*sidecar.InvalidRequestError](t, err)
}

func TestARestartInMemoryBeginsAnew(t *testing.T) {
	first := program.Start(t)
	client := first.Client(t)
	w := watch(t, client, sidecar.WatchOptions{Subject: "ada"})
	next[*sidecar.SnapshotEnd](t, w)
	create(t, client, sidecar.CreateOptions{Subject: "ada"})
	first.Kill()
	program.StartAt(t, first.TCP)
	if anew := next[*sidecar.BeginAnew](t, w); anew.Reason != "RESUME_TOKEN_EXPIRED" || w.ResumeToken() != "" {
		t.Errorf("%+v", anew)
	}
	if whole := next[*sidecar.SnapshotEnd](t, w); whole.SnapshotCount != 0 {
		t.Errorf("%+v", whole)
	}
	created := create(t, client, sidecar.CreateOptions{Subject: "ada"})
	end(t, client, created.ID)
	if over := next[*sidecar.SessionEnded](t, w); over.Session.SessionRef != created.Session.Status.SessionRef {
		t.Errorf("%+v", over)
	}
}

func TestALostConnectionLosesNothing(t *testing.T) {
	process := program.Start(t)
	proxy := between(t, process)
	client := process.Client(t)
	w := watch(t, program.Client(t, proxy.target), sidecar.WatchOptions{Subject: "ada", HeartbeatInterval: time.Second})
	next[*sidecar.SnapshotEnd](t, w)
	sessions := []*sidecar.Created{}
	for range 4 {
		sessions = append(sessions, create(t, client, sidecar.CreateOptions{Subject: "ada"}))
	}
	end(t, client, sessions[0].ID)
	next[*sidecar.SessionEnded](t, w)
	proxy.drop()
	for _, each := range sessions[1:] {
		end(t, client, each.ID)
	}
	for _, each := range sessions[1:] {
		if over := next[*sidecar.SessionEnded](t, w); over.Session.SessionRef != each.Session.Status.SessionRef {
			t.Error("each once, in order:", over.Session.SessionRef)
		}
	}
}

func TestASilentSidecarIsLeftAfterThreeHeartbeats(t *testing.T) {
	process := program.Start(t)
	client := process.Client(t)
	w := watch(t, client, sidecar.WatchOptions{Subject: "ada", HeartbeatInterval: time.Second})
	next[*sidecar.SnapshotEnd](t, w)
	heard := make(chan sidecar.Event, 1)
	go func() {
		event, _ := w.Next(ctx)
		heard <- event
	}()
	goOn := process.StandStill(t)
	program.Eventually(t, "the silence is noticed", func() bool { return !w.Connected() })
	goOn()
	// What it says when it goes on is not lost.
	end(t, client, create(t, client, sidecar.CreateOptions{Subject: "ada"}).ID)
	if event, is := (<-heard).(*sidecar.SessionEnded); !is {
		t.Errorf("%#v", event)
	}
}

func TestATokenGoesOnInAnotherProcessOfTheApplication(t *testing.T) {
	client := program.Start(t).Client(t)
	w := watch(t, client, sidecar.WatchOptions{Subject: "ada"})
	next[*sidecar.SnapshotEnd](t, w)
	first := create(t, client, sidecar.CreateOptions{Subject: "ada"})
	second := create(t, client, sidecar.CreateOptions{Subject: "ada"})
	end(t, client, first.ID)
	next[*sidecar.SessionEnded](t, w)
	token := w.ResumeToken()
	w.Close()
	end(t, client, second.ID)
	again := watch(t, client, sidecar.WatchOptions{Subject: "ada", ResumeToken: token})
	if over := next[*sidecar.SessionEnded](t, again); over.Session.SessionRef != second.Session.Status.SessionRef {
		t.Error("what was told before is told again")
	}
}

// redis is a real store.
func redis(t *testing.T) string {
	t.Helper()
	address := program.Nobody(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command("../../.tools/bin/redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", t.TempDir())
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = command.Process.Kill(), command.Wait() })
	program.Eventually(t, "Redis is ready", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return "redis://" + address
}

func TestARestartOverAStoreResumesWithoutAGap(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, bytes.Repeat([]byte("k"), 32), 0o600); err != nil {
		t.Fatal(err)
	}
	shared := []string{"--store", redis(t), "--store-key-file", key}
	first, second := program.StartReal(t, "127.0.0.1:0", shared...), program.StartReal(t, "127.0.0.1:0", shared...)
	elsewhere := second.Client(t)
	w := watch(t, program.Client(t, first.TCP), sidecar.WatchOptions{Subject: "ada"})
	next[*sidecar.SnapshotEnd](t, w)
	sessions := []*sidecar.Created{}
	for range 6 {
		sessions = append(sessions, create(t, elsewhere, sidecar.CreateOptions{Subject: "ada"}))
	}
	end(t, elsewhere, sessions[0].ID)
	next[*sidecar.SessionEnded](t, w)
	first.Kill()
	for _, each := range sessions[1:5] {
		end(t, elsewhere, each.ID)
	}
	program.StartReal(t, first.TCP, shared...)
	end(t, elsewhere, sessions[5].ID)
	left := map[sidecar.Ref]bool{}
	for _, each := range sessions[1:] {
		left[each.Session.Status.SessionRef] = true
	}
	for range 5 {
		over := next[*sidecar.SessionEnded](t, w)
		if !left[over.Session.SessionRef] {
			t.Error("each once:", over.Session.SessionRef)
		}
		delete(left, over.Session.SessionRef)
	}
}
