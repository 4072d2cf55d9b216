package fake

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

// server has the sessions of a fake, the policies, the clock, and the log of what happened. Every call has the lock.
type server struct {
	pb.UnimplementedSessionServiceServer
	pb.UnimplementedSessionAdminServiceServer

	policies map[string]*limits
	tenants  []string
	key      []byte
	epoch    string

	mu      sync.Mutex
	now     time.Time
	records map[string]*record
	added   int
	alarms  []*alarm
	log     []entry
	changed chan struct{} // Closed, and another made, when something happened.
}

// alarm is what is to be done at a time of the fake's clock, and after how long again.
type alarm struct {
	at      time.Time
	ring    func() (time.Duration, bool)
	ringing sync.Mutex // Held while it rings, so that nothing rings after it was stopped.
	stopped bool
}

// entry is what happened to a session, as watchers are told.
type entry struct {
	ref, tenant, subject string
	kind                 pb.EventKind // 0 for a session that goes on in another's place.
	draining             bool
	message              *pb.WatchExpiryResponse
	successor            string
}

func newServer(policies map[string]*limits, tenants []string) *server {
	return &server{
		policies: policies, tenants: tenants, key: random(32), epoch: hex.EncodeToString(random(8)),
		now: time.Now().UTC().Round(0), records: map[string]*record{}, changed: make(chan struct{}),
	}
}

func random(size int) []byte {
	bytes := make([]byte, size)
	_, _ = rand.Read(bytes) // It never fails.
	return bytes
}

// ---- Time ----

// advance moves the clock from one thing that is due to the next, so that each happens at its own time. Alarms ring without the lock.
func (s *server) advance(by time.Duration) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	until := s.now.Add(by)
	for {
		due, rings := s.due(until)
		if due.After(until) {
			s.now = until
			return until
		}
		s.now = latest(s.now, due)
		s.catchUp()
		if rings != nil {
			s.ring(rings)
		}
	}
}

// due is when something is due next, after `until` if nothing is, and the alarm that rings by then.
func (s *server) due(until time.Time) (time.Time, *alarm) {
	at := until.Add(1)
	for _, each := range s.live() {
		if next := each.nextAction(s.now); next.Before(at) {
			at = next
		}
	}
	var rings *alarm
	for _, each := range s.alarms {
		if !each.at.After(at) && !each.at.After(until) {
			at, rings = each.at, each
		}
	}
	return at, rings
}

func (s *server) ring(due *alarm) {
	s.mu.Unlock()
	due.ringing.Lock()
	after, again := time.Duration(0), false
	if !due.stopped {
		after, again = due.ring()
	}
	due.ringing.Unlock()
	s.mu.Lock()
	if again {
		due.at = s.now.Add(after)
	} else {
		s.cancel(due)
	}
}

func (s *server) cancel(over *alarm) {
	s.alarms = slices.DeleteFunc(s.alarms, func(each *alarm) bool { return each == over })
}

// Start rings by the fake's clock: it is the Scheduler of the fake's clients.
func (s *server) Start(first time.Duration, ring func() (time.Duration, bool)) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := &alarm{at: s.now.Add(first), ring: ring}
	s.alarms = append(s.alarms, own)
	return func() {
		own.ringing.Lock()
		own.stopped = true
		own.ringing.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cancel(own)
	}
}

// catchUp has whatever is due by now happen, in order.
func (s *server) catchUp() {
	live := s.live()
	slices.SortStableFunc(live, func(a, b *record) int { return a.nextAction(s.now).Compare(b.nextAction(s.now)) })
	for _, each := range live {
		if !each.nextAction(s.now).After(s.now) {
			each.judge(s.now)
			s.publish(each)
		}
	}
}

// ---- Names ----

// madeOf is so many bytes that nobody can guess, and that the same words always give.
func (s *server) madeOf(size int, words ...string) string {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(strings.Join(words, "\x00")))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:size])
}

func (s *server) ref(tenant, id string) string { return s.madeOf(16, "ref", tenant, id) }

// add makes a session known.
func (s *server) add(r *record) {
	s.added++
	r.place = s.added
	s.records[r.ref] = r
	s.publish(r)
}

// live are the sessions that live, in the order in which they became known.
func (s *server) live() []*record {
	var live []*record
	for _, each := range s.records {
		if each.tombstone == nil {
			live = append(live, each)
		}
	}
	slices.SortFunc(live, func(a, b *record) int { return a.place - b.place })
	return live
}

// find is a session that is live or remembered.
func (s *server) find(ref string) *record {
	found := s.records[ref]
	if found != nil && found.tombstone != nil && (found.tombstone.silent || !found.tombstone.forgetAt.After(s.now)) {
		delete(s.records, ref)
		return nil
	}
	return found
}

// examined notes that a deadline has passed: it may live on, only observed.
func (s *server) examined(r *record) *record {
	if expire, _ := r.deadlines(s.now).nearest(); r.tombstone == nil && !expire.After(s.now) {
		r.judge(s.now)
		s.publish(r)
	}
	return r
}

func (s *server) findOwn(tenant, ref string) *record {
	if found := s.find(ref); found != nil && found.tenant == tenant {
		return s.examined(found)
	}
	return nil
}

// successor is the session that goes on in the place of an ended one, perhaps ended itself; nil if that leads nowhere.
func (s *server) successor(r *record, leads func(*tombstone) bool) *record {
	if r.tombstone == nil || !leads(r.tombstone) {
		return nil
	}
	next := s.find(r.tombstone.successor)
	for next != nil && next.tombstone != nil && leads(next.tombstone) {
		next = s.find(next.tombstone.successor)
	}
	return next
}

func (s *server) isAlias(end *tombstone) bool { return s.now.Before(end.aliasUntil) }

// lead is the live session that an id leads to, and whether by way of a former one.
func (s *server) lead(tenant, id string, leads func(*tombstone) bool) (*record, bool, error) {
	ref := s.ref(tenant, id)
	found := s.find(ref)
	if found == nil {
		if err := s.refuseRef("session_id", tenant, id); err != nil {
			return nil, false, err
		}
		least := 256
		for _, each := range s.policies {
			least = min(least, each.minIDLength)
		}
		if err := longEnough("session_id", id, least); err != nil {
			return nil, false, err
		}
		return nil, false, unknownTo(ref)
	}
	if found.tombstone == nil {
		return found, false, nil
	}
	next := s.successor(found, leads)
	switch {
	case next == nil:
		return nil, false, endedError(found)
	case next.tombstone != nil:
		return nil, false, endedError(next)
	}
	return next, true, nil
}

// holder is the same; for a hold that lives, also by a former id whose grace is over, if that led here when the hold began. Never over
// a login, which leaves no alias: whoever knew the id before it is not the one who logged in.
func (s *server) holder(tenant, id, holdID string) (*record, bool, error) {
	found, alias, over := s.lead(tenant, id, s.isAlias)
	var why *failed
	if over == nil || !errors.As(over, &why) || why.reason != "SESSION_ENDED" {
		return found, alias, over
	}
	found, _, err := s.lead(tenant, id, func(end *tombstone) bool { return end.successor != "" })
	if err != nil {
		return nil, false, over
	}
	for _, each := range found.liveHolds(s.now) {
		if each.id != holdID {
			continue
		}
		led := func(end *tombstone) bool { return end.aliasUntil.After(end.at) && each.started.Before(end.aliasUntil) }
		if found, alias, err := s.lead(tenant, id, led); err == nil {
			return found, alias, nil
		}
	}
	return nil, false, over
}

func (s *server) refuseRef(field, tenant, id string) error {
	if refForm.MatchString(id) && s.findOwn(tenant, id) != nil {
		return invalid(field, "is a session_ref; a session's id is needed here (a ref is no credential)")
	}
	return nil
}

func longEnough(field, id string, least int) error {
	if len(id) < least {
		return invalid(field, fmt.Sprintf("is too short: at least %d bytes are needed", least))
	}
	return nil
}

// ownTenant checks that a tenant is served.
func (s *server) ownTenant(field, tenant string) error {
	b := &bounds{}
	b.visible(field, tenant, 0, 128)
	if err := b.err(); err != nil || slices.Contains(s.tenants, tenant) {
		return err
	}
	problem := field + ": this caller may not name this tenant: the `tenants` of its listener, or of its entry in [[callers]], decide that"
	return &failed{code: codes.PermissionDenied, message: problem, reason: "CALLER_NOT_ALLOWED"}
}

// named is the ref of a session that is named by its id or ref.
func (s *server) named(tenant, field string, name *pb.SessionName) (string, error) {
	b := &bounds{}
	switch said := name.GetName().(type) {
	case *pb.SessionName_SessionId:
		b.sessionID(field+"session_id", said.SessionId)
		if err := b.err(); err != nil {
			return "", err
		}
		return s.ref(tenant, said.SessionId), s.refuseRef(field+"session_id", tenant, said.SessionId)
	case *pb.SessionName_SessionRef:
		b.sessionRef(field+"session_ref", said.SessionRef)
		return said.SessionRef, b.err()
	}
	return "", invalid(field+"session_id", "is required, or session_ref in its place")
}

// ---- Refusals ----

func unknownTo(ref string) error {
	told := map[string]string{"session_ref": ref}
	return &failed{code: codes.NotFound, message: "the session is not known", reason: "SESSION_UNKNOWN", metadata: told}
}

func endedError(r *record) error {
	end := r.tombstone
	told := map[string]string{
		"session_ref": r.ref, "reason": strings.TrimPrefix(end.reason.String(), "END_REASON_"), "actor": strings.TrimPrefix(end.actor.String(), "ACTOR_"),
		"end_time": end.at.Format("2006-01-02T15:04:05.000Z07:00"), "actor_id": end.actorID, "note": end.note, "successor_ref": end.successor,
	}
	for key, value := range told {
		if value == "" {
			delete(told, key)
		}
	}
	return &failed{code: codes.FailedPrecondition, message: "the session has ended", reason: "SESSION_ENDED", metadata: told}
}

// refusal is a refusal in one word of the API, about a session if one is meant.
func refusal(reason, message string, about *record) error {
	f := &failed{code: codes.FailedPrecondition, message: message, reason: reason}
	switch reason {
	case "HOLD_CAP", "HOLD_BUDGET", "SUBJECT_CAP":
		f.code = codes.ResourceExhausted
	case "SESSION_EXISTS":
		f.code = codes.AlreadyExists
	}
	if about != nil {
		f.metadata = map[string]string{"session_ref": about.ref}
	}
	return f
}

// told is what a record's own error is told as.
func told(r *record, err error) error {
	var why *refused
	switch {
	case !errors.As(err, &why):
		return err
	case why == errOver:
		return endedError(r)
	case why.reason == "ALREADY_PAST_LIMIT":
		return refusal(why.reason, why.message, nil)
	}
	return refusal(why.reason, why.message, r)
}

// ---- The log ----

// publish writes into the log what happened to a record.
func (s *server) publish(r *record) {
	happened := r.news
	r.news = nil
	for _, each := range happened {
		successor := ""
		if end, is := each.what.(ended); is {
			if end.tombstone.silent {
				continue
			}
			successor = end.tombstone.successor
		}
		kind, message := toldOf(r, each, s.now)
		s.log = append(s.log, entry{ref: r.ref, tenant: r.tenant, subject: r.subject, kind: kind, message: message, successor: successor})
	}
	if len(happened) > 0 {
		s.tell()
	}
}

// tell wakes those who wait for something to happen.
func (s *server) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *server) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	message := &pb.WatchExpiryResponse{EmitTime: stamp(s.now), Message: &pb.WatchExpiryResponse_Draining{Draining: &pb.Draining{}}}
	s.log = append(s.log, entry{draining: true, message: message})
	s.tell()
}
