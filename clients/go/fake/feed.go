package fake

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

const mostWatched = 1000

// follow adds those that went on in the place of these.
func follow(log []entry, refs map[string]bool) {
	for _, each := range log {
		if each.successor != "" && refs[each.ref] {
			refs[each.successor] = true
		}
	}
}

// feed is one watch: the state first if it was asked for, then what happens.
type feed struct {
	server     *server
	tenant     string
	everything bool
	subject    string
	named      map[string]string // The ids by which sessions were named; nil if none were.
	refs       map[string]bool   // The sessions that were named, and those that went on in their place.
	kinds      []pb.EventKind
	binding    string
	place      int
	ready      []*pb.WatchExpiryResponse
}

// WatchExpiry tells what happens.
func (s *server) WatchExpiry(q *pb.WatchExpiryRequest, stream pb.SessionService_WatchExpiryServer) error {
	s.mu.Lock()
	s.catchUp()
	f, err := s.newFeed(q)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	heartbeat := 15 * time.Second
	if q.HeartbeatInterval != nil {
		heartbeat = q.GetHeartbeatInterval().AsDuration()
	}
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		s.mu.Lock()
		messages, changed := f.told(), s.changed
		s.mu.Unlock()
		for _, each := range messages {
			if err := stream.Send(each); err != nil {
				return err
			}
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-changed:
		case <-ticker.C: // Real time: it says that the sidecar is there.
			s.mu.Lock()
			f.ready = append(f.ready, &pb.WatchExpiryResponse{EmitTime: stamp(s.now), Message: &pb.WatchExpiryResponse_Heartbeat{Heartbeat: &pb.Heartbeat{}}})
			s.mu.Unlock()
		}
	}
}

func (s *server) newFeed(q *pb.WatchExpiryRequest) (*feed, error) {
	f := &feed{server: s, place: len(s.log)}
	if err := f.readScope(q.GetScope()); err != nil {
		return nil, err
	}
	b := &bounds{}
	for place, kind := range q.GetKinds() {
		b.known(fmt.Sprintf("kinds[%d]", place), kind)
		if kind == 0 {
			b.invalid(fmt.Sprintf("kinds[%d]", place), "is unspecified; leave `kinds` empty to get all")
		}
	}
	if q.HeartbeatInterval != nil {
		b.between("heartbeat_interval", q.GetHeartbeatInterval(), false, time.Second, 5*time.Minute)
	}
	if q.GetResumeToken() != "" && q.GetIncludeInitialState() {
		b.invalid("include_initial_state", "must be false with a resume_token: resume, or begin anew")
	}
	if err := b.err(); err != nil {
		return nil, err
	}
	if f.kinds = q.GetKinds(); len(f.kinds) == 0 {
		f.kinds = []pb.EventKind{pb.EventKind_EVENT_KIND_WARNING, pb.EventKind_EVENT_KIND_CLEARED, pb.EventKind_EVENT_KIND_ENDED}
	}
	follow(s.log, f.refs)
	if q.GetResumeToken() != "" {
		return f, f.resume(q.GetResumeToken())
	}
	if q.GetIncludeInitialState() {
		for _, each := range f.inScope() {
			f.ready = append(f.ready, snapshotOf(each, s.now))
		}
	}
	end := &pb.SnapshotEnd{SnapshotCount: uint64(len(f.ready))}
	f.ready = append(f.ready, &pb.WatchExpiryResponse{EmitTime: stamp(s.now), Message: &pb.WatchExpiryResponse_SnapshotEnd{SnapshotEnd: end}})
	return f, nil
}

func (f *feed) readScope(scope *pb.WatchScope) error {
	b := &bounds{}
	f.tenant = scope.GetTenant()
	defer func() {
		bound, _ := json.Marshal([]any{f.everything, f.tenant, f.subject, f.named != nil, slices.Sorted(maps.Keys(f.named))})
		hash := sha256.Sum256(bound)
		f.binding = hex.EncodeToString(hash[:])
	}()
	switch said := scope.GetScope().(type) {
	case nil:
		return invalid("scope", "is required: sessions, a subject, whole_tenant or everything")
	case *pb.WatchScope_Everything:
		f.everything, f.tenant = true, ""
		return nil
	case *pb.WatchScope_Subject:
		if f.subject = said.Subject; f.subject == "" {
			b.invalid("scope.subject", "is empty; 1 to 256 bytes are needed")
		}
		b.text("scope.subject", f.subject, 256)
	case *pb.WatchScope_Sessions:
		b.within("scope.sessions.names", len(said.Sessions.GetNames()), mostWatched)
		f.named, f.refs = map[string]string{}, map[string]bool{}
		for place, name := range said.Sessions.GetNames() {
			ref, err := f.server.named(f.tenant, fmt.Sprintf("scope.sessions.names[%d].", place), name)
			if err != nil {
				return err
			}
			f.refs[ref] = true
			if f.named[ref] == "" {
				f.named[ref] = name.GetSessionId()
			}
		}
	}
	if err := f.server.ownTenant("scope.tenant", f.tenant); err != nil {
		return err
	}
	return b.err()
}

// inScope are the sessions that the initial state is about: the live ones and, if they are named, the ended ones too.
func (f *feed) inScope() []*record {
	var found []*record
	for _, ref := range slices.Sorted(maps.Keys(f.server.records)) {
		each := f.server.find(ref)
		if each != nil && f.covers(each.ref, each.tenant, each.subject) && (f.refs != nil || each.tombstone == nil) {
			found = append(found, f.server.examined(each))
		}
	}
	return found
}

func (f *feed) covers(ref, tenant, subject string) bool {
	switch {
	case f.everything:
		return slices.Contains(f.server.tenants, tenant)
	case tenant != f.tenant:
		return false
	case f.refs != nil:
		return f.refs[ref]
	}
	return f.subject == "" || f.subject == subject
}

// told are the messages that there are by now.
func (f *feed) told() []*pb.WatchExpiryResponse {
	var messages []*pb.WatchExpiryResponse
	tell := func(message *pb.WatchExpiryResponse) {
		own := proto.Clone(message).(*pb.WatchExpiryResponse)
		if about := sessionIn(own); about != nil {
			about.SessionId = f.named[about.GetSessionRef()]
		}
		own.ResumeToken = f.token()
		messages = append(messages, own)
	}
	for _, each := range f.ready {
		tell(each)
	}
	f.ready = nil
	for f.place < len(f.server.log) {
		each := f.server.log[f.place]
		f.place++
		if f.wants(each) {
			tell(each.message)
		}
	}
	return messages
}

func sessionIn(message *pb.WatchExpiryResponse) *pb.EventSession {
	switch said := message.GetMessage().(type) {
	case *pb.WatchExpiryResponse_Snapshot:
		return said.Snapshot.GetSession()
	case *pb.WatchExpiryResponse_Warning:
		return said.Warning.GetSession()
	case *pb.WatchExpiryResponse_Cleared:
		return said.Cleared.GetSession()
	case *pb.WatchExpiryResponse_Ended:
		return said.Ended.GetSession()
	}
	return nil
}

func (f *feed) wants(each entry) bool {
	if each.draining {
		return true
	}
	if !f.covers(each.ref, each.tenant, each.subject) {
		return false
	}
	if each.successor != "" && f.refs != nil {
		f.refs[each.successor] = true
	}
	if each.kind == 0 {
		// Whoever watches more than names and a subject sees a successor by its own events.
		return f.refs != nil || f.subject != ""
	}
	return slices.Contains(f.kinds, each.kind)
}

// place is where a token goes on.
type place struct {
	Epoch   string
	Place   int
	Binding string
}

func (f *feed) token() string {
	told, _ := json.Marshal(place{f.server.epoch, f.place, f.binding})
	return base64.URLEncoding.EncodeToString(told)
}

func (f *feed) resume(token string) error {
	var at place
	told, err := base64.URLEncoding.DecodeString(token)
	if err != nil || json.Unmarshal(told, &at) != nil || at.Binding != f.binding {
		return invalid("resume_token", "is not a token of this sidecar for this scope and caller")
	}
	if at.Epoch != f.server.epoch {
		problem := "the event log no longer reaches back to the resume_token; open again with include_initial_state"
		return &failed{code: codes.OutOfRange, message: problem, reason: "RESUME_TOKEN_EXPIRED"}
	}
	f.place = at.Place
	return nil
}
