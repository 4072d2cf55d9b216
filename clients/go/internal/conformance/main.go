// Command conformance executes the conformance scenario with this client and prints its transcript: conformance SCENARIO TARGET, or with
// its fake: conformance SCENARIO fake. See tests/conformance/README.md.
//
// The scenario speaks of requests and answers of the wire. So each request is made into a call of the client, and what the client says
// is made into the message of the wire that it must have come from, field by field: what the client loses or bends is a difference in
// the transcript. Admin verbs, and requests that the client cannot be made to send, go out as they are.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	sidecar "session-sidecar"
	"session-sidecar/fake"
	"session-sidecar/internal/transcript"
	pb "session-sidecar/proto/sessionsidecar/v1"
	"session-sidecar/sidecartest"
)

const patience = 30 * time.Second // Only a failing run waits as long.

type step struct {
	Note, Call, As, Admin, Advance, Watch, Read, Cut, Resume string
	Count                                                    int
	AnyOrder                                                 int `json:"any_order"`
	Stop                                                     []string
	Request                                                  json.RawMessage
}

// world is what the scenario is played in: a sidecar.
type world struct {
	client *sidecar.Client
	stop   func()
	// The driver says why, and compares all else: see FAKES in tests/conformance/conformance.py.
	notAsked []string
}

type runner struct {
	world
	names    *transcript.Names
	watchers map[string]*watcher
}

func main() {
	steps := must(read(os.Args[1]))
	r := &runner{names: transcript.NewNames(), watchers: map[string]*watcher{}}
	if target := os.Args[2]; target == "fake" {
		r.world = imagined(filepath.Dir(os.Args[1]))
	} else {
		r.world = real(target)
	}
	for _, step := range steps {
		fmt.Println(strings.Join(r.carryOut(step), "\n"))
	}
}

func read(path string) (steps []step, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return steps, json.Unmarshal(text, &steps)
}

// real is a sidecar in a process of its own. The driver waits for the line `Stop`, and stops it.
func real(target string) world {
	return world{client: must(sidecar.New(target, sidecar.WithDeadline(patience))), stop: func() {}}
}

// Lists are in the order of refs, which is that of the key. The scenario's key orders these sessions so.
var listed = []sidecar.ID{"first-id-of-vera-0123456789", "third-id-of-vera-0123456789", "second-id-of-vera-0123456789"}

// imagined is a fake in the sidecar's place: nothing listens anywhere.
func imagined(folder string) world {
	for {
		f := must(fake.New(fake.PolicyFile(filepath.Join(folder, "policy.toml"))))
		var refs []sidecar.Ref
		for _, id := range listed {
			refs = append(refs, must(f.Client().Check(context.Background(), id)).(*sidecar.Unknown).SessionRef)
		}
		if !slices.IsSorted(refs) {
			f.Close()
			continue
		}
		return world{
			client:   f.Client(),
			stop:     f.Drain,
			notAsked: []string{"ExplainSession", "ListPolicies", "GetStats"},
		}
	}
}

func (r *runner) carryOut(s step) []string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch {
	case s.Note != "":
		return []string{"", "# " + s.Note}
	case s.Call != "":
		return r.ask(ctx, s, "sessionsidecar.v1.SessionService", s.Call)
	case s.Admin != "":
		return r.ask(ctx, s, "sessionsidecar.v1.SessionAdminService", s.Admin)
	case s.Advance != "":
		if _, err := sidecartest.Advance(ctx, r.client, must(time.ParseDuration(s.Advance))); err != nil {
			panic(err)
		}
		return []string{"Advance " + s.Advance}
	case s.Watch != "":
		r.watchers[s.Watch] = newWatcher(r.client, r.request("WatchExpiryRequest", s.Request).(*pb.WatchExpiryRequest))
		return []string{fmt.Sprintf("Watch (%s) %s", s.Watch, transcript.Spaced(s.Request))}
	case s.Read != "":
		return r.read(ctx, s.Read, s.Count, s.AnyOrder)
	case s.Cut != "":
		r.watchers[s.Cut].watch.Close()
		return []string{"Cut (" + s.Cut + ")"}
	case s.Resume != "":
		r.watchers[s.Resume].resume()
		return []string{"Resume (" + s.Resume + ")"}
	}
	fmt.Println("Stop")
	r.stop()
	var lines []string
	for _, name := range s.Stop {
		lines = append(lines, r.read(ctx, name, 2, 0)...)
	}
	return lines
}

func message(name string) proto.Message {
	kind := must(protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName("sessionsidecar.v1." + name)))
	return kind.New().Interface()
}

var alias = regexp.MustCompile(`"(\$[^"]+)"`)

func (r *runner) request(kind string, content json.RawMessage) proto.Message {
	text := alias.ReplaceAllFunc(content, func(found []byte) []byte {
		return must(json.Marshal(r.names.Value(string(found[1 : len(found)-1]))))
	})
	request := message(kind)
	if err := protojson.Unmarshal(text, request); err != nil {
		panic(err)
	}
	return request
}

func (r *runner) ask(ctx context.Context, s step, service, verb string) []string {
	if slices.Contains(r.notAsked, verb) {
		return []string{verb + " " + transcript.Spaced(s.Request)}
	}
	request := r.request(verb+"Request", s.Request)
	tenant := request.ProtoReflect().Descriptor().Fields().ByName("tenant")
	client := r.client
	if tenant != nil {
		client = client.With(sidecar.WithTenant(request.ProtoReflect().Get(tenant).String()))
	}
	answer, err := through(ctx, client, request)
	if errors.Is(err, errUnsayable) {
		answer, err = message(verb+"Response"), nil
		if failed := r.client.Conn().Invoke(ctx, "/"+service+"/"+verb, request, answer); failed != nil {
			err = transcript.Decoded(failed)
		}
	}
	outcome := []string{"OK"}
	if err != nil {
		outcome = r.names.Failed(asProblem(err))
	} else {
		r.learn(s.As, answer)
		for _, line := range r.names.Flatten(answer.ProtoReflect()) {
			outcome = append(outcome, "  "+line)
		}
	}
	return append([]string{verb + " " + transcript.Spaced(s.Request)}, indented(outcome)...)
}

func indented(lines []string) []string {
	var moved []string
	for _, line := range lines {
		moved = append(moved, "  "+line)
	}
	return moved
}

func (r *runner) learn(as string, answer proto.Message) {
	switch answer := answer.(type) {
	case interface {
		GetSessionId() string
		GetSession() *pb.Session
	}:
		if as != "" {
			r.names.Learn(as, answer.GetSessionId(), answer.GetSession().GetStatus().GetSessionRef())
		}
	case interface{ GetNextPageToken() string }:
		if token := answer.GetNextPageToken(); token != "" {
			r.names.LearnPage(token)
		}
	}
}

func (r *runner) read(ctx context.Context, name string, count, anyOrder int) []string {
	var told [][]string
	for range count {
		told = append(told, r.watchers[name].read(ctx, r.names))
	}
	unordered := told[:anyOrder]
	sort.Slice(unordered, func(i, j int) bool { return slices.Compare(unordered[i], unordered[j]) < 0 })
	var lines []string
	for _, each := range told {
		lines = append(lines, "Read ("+name+")")
		lines = append(lines, indented(each)...)
	}
	return lines
}

// watcher is one watch, and how it was asked for.
type watcher struct {
	client  *sidecar.Client
	options sidecar.WatchOptions
	watch   *sidecar.Watch
	err     error
}

func newWatcher(client *sidecar.Client, request *pb.WatchExpiryRequest) *watcher {
	scope := request.GetScope()
	options := sidecar.WatchOptions{
		Subject: scope.GetSubject(), WholeTenant: scope.GetWholeTenant(), Everything: scope.GetEverything(),
		NoInitialState: !request.GetIncludeInitialState(), HeartbeatInterval: request.GetHeartbeatInterval().AsDuration(),
		ResumeToken: request.GetResumeToken(),
	}
	for _, each := range scope.GetSessions().GetNames() {
		options.Sessions = append(options.Sessions, named(each))
	}
	for _, each := range request.GetKinds() {
		options.Kinds = append(options.Kinds, must(said[sidecar.EventKind](each)))
	}
	w := &watcher{client: client.With(sidecar.WithTenant(scope.GetTenant())), options: options}
	w.open()
	return w
}

func (w *watcher) open() { w.watch, w.err = w.client.Watch(w.options) }

func (w *watcher) resume() {
	w.options.ResumeToken = w.watch.ResumeToken()
	w.open()
}

// read tells the next message, or how the stream ended.
func (w *watcher) read(ctx context.Context, names *transcript.Names) []string {
	var event sidecar.Event
	err := w.err
	if err == nil {
		event, err = w.watch.Next(ctx)
	}
	switch {
	case errors.Is(err, sidecar.ErrClosed):
		return []string{"OK"}
	case err != nil:
		return names.Failed(asProblem(err))
	}
	told := new(pb.WatchExpiryResponse)
	fill := func(name protoreflect.Name) {
		fields := told.ProtoReflect().Descriptor().Fields()
		encoded(told.ProtoReflect().Mutable(fields.ByName(name)).Message().Interface(), event)
		encoded(told, event)
	}
	switch event := event.(type) {
	case *sidecar.BeginAnew:
		if event.Reason != "RESUME_TOKEN_INVALID" {
			panic(event.Reason)
		}
		// A token that is of no use is no reason to give up: the watch goes on, with the state anew.
		return names.Failed(&transcript.Problem{Code: "INVALID_ARGUMENT", Fields: []string{"resume_token"}})
	case *sidecar.Snapshot:
		fill("snapshot")
	case *sidecar.SnapshotEnd:
		fill("snapshot_end")
	case *sidecar.Warning:
		fill("warning")
	case *sidecar.Cleared:
		fill("cleared")
	case *sidecar.SessionEnded:
		fill("ended")
	case *sidecar.Draining:
		fill("draining")
		w.watch.Close()
	}
	return names.Flatten(told.ProtoReflect())
}
