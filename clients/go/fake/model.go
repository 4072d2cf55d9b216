package fake

import (
	"maps"
	"slices"
	"time"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

// The life of one session: a record, what is asked of it, and what happens to it. It has no clock and does no I/O: `now` is an argument,
// and what watchers are told is left in `news`. The same rules as the sidecar's own state machine, in its words.

const (
	aliasGrace         = 5 * time.Second
	requestMemory      = 10 * time.Minute
	requestsRemembered = 8
)

const (
	idle     = pb.Limit_LIMIT_IDLE
	absolute = pb.Limit_LIMIT_ABSOLUTE
	presence = pb.Limit_LIMIT_PRESENCE
)

var timeoutReasons = map[pb.Limit]pb.EndReason{
	idle:     pb.EndReason_END_REASON_IDLE_TIMEOUT,
	absolute: pb.EndReason_END_REASON_ABSOLUTE_TIMEOUT,
	presence: pb.EndReason_END_REASON_BROWSER_CLOSED,
}

// refused is a command that the record refuses, in one word of the API; SESSION_ENDED if it is over.
type refused struct{ reason, message string }

func (r *refused) Error() string { return r.reason + ": " + r.message }

var errOver = &refused{"SESSION_ENDED", "the session has ended"}

// wanted is hashes of a request id, and of all else that the request says.
type wanted struct{ key, content string }

// remembered is a request that was carried out, when, and what it was answered: outcome is "created", "rotated" or "extended".
type remembered struct {
	wanted
	at      time.Time
	outcome string
	reply   extendReply
}

type hold struct {
	id             string
	kind           pb.HoldKind
	purpose        string
	started, until time.Time
}

// deadlines are when a session ends by each limit, if nothing else happens. No presence deadline is a zero one.
type deadlines struct{ idle, absolute, presence time.Time }

// nearest is the one formula. On a tie the absolute one, and any other rather than presence.
func (d deadlines) nearest() (time.Time, pb.Limit) {
	at, limit := d.absolute, absolute
	if d.idle.Before(at) {
		at, limit = d.idle, idle
	}
	if !d.presence.IsZero() && d.presence.Before(at) {
		return d.presence, presence
	}
	return at, limit
}

// tombstone is how a session ended. A silent end is told to nobody: a session that is only observed was forgotten.
type tombstone struct {
	reason       pb.EndReason
	actor        pb.Actor
	at           time.Time
	forgetAt     time.Time
	actorID      string
	note         string
	idleDeadline time.Time
	successor    string
	aliasUntil   time.Time
	request      *wanted
	silent       bool
}

// What happened to a record.
type (
	warned struct {
		limit     pb.Limit
		point     time.Duration
		expire    time.Time
		canExtend bool
	}
	cleared struct {
		limit  pb.Limit
		cause  pb.ClearedCause
		expire time.Time
	}
	succeeded struct{ record *record } // It goes on in the place of another one: as it was then.
	ended     struct{ tombstone *tombstone }
)

type news struct {
	version uint64
	what    any
}

type extendReply struct {
	granted time.Duration
	clamped bool
}

type holdReply struct {
	granted time.Duration
	clamped pb.HoldClamp
	created bool
}

// presenceEnd is when the last open page went, and whether it was left; else it was lost sight of.
type presenceEnd struct {
	at   time.Time
	left bool
}

type unenforced struct {
	limit pb.Limit
	at    time.Time
}

// record is a session.
type record struct {
	ref, tenant, subject                 string
	labels                               map[string]string
	limits                               *limits
	created, authenticated, lastActivity time.Time
	level                                string
	predecessor                          string
	version                              uint64
	extensions                           int
	fired                                map[pb.Limit]int // How many warning points have fired, while the limit's warning stands.
	holds                                []*hold
	extendedUntil                        time.Time
	workEnded                            time.Time
	budgetFrom                           time.Time // The first WORK hold since the last surely human activity.
	presenceEnded                        *presenceEnd
	reportsInput                         bool
	unenforced                           *unenforced // What would have ended it, if its policy were enforced.
	requests                             []remembered
	tombstone                            *tombstone
	news                                 []news
	place                                int // In the order in which sessions became known.
}

func (r *record) copied() *record {
	other := *r
	other.fired, other.requests, other.news = maps.Clone(r.fired), slices.Clone(r.requests), slices.Clone(r.news)
	other.holds = nil
	for _, each := range r.holds {
		own := *each
		other.holds = append(other.holds, &own)
	}
	return &other
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }

// ---- Deadlines ----

// deadlines are those in force: there is no presence deadline while a hold lives.
func (r *record) deadlines(now time.Time) deadlines {
	plain := r.plainDeadlines()
	if len(r.liveHolds(now)) > 0 {
		plain.presence = time.Time{}
	}
	return plain
}

// plainDeadlines are each as it will be if nothing else happens: live holds lapse at their time.
func (r *record) plainDeadlines() deadlines {
	work := r.workReaches()
	return deadlines{
		idle:     latest(latest(r.lastActivity, work).Add(r.limits.idleTimeout), r.extendedUntil),
		absolute: r.authenticated.Add(r.limits.absoluteTimeout),
		presence: r.presenceDeadline(work),
	}
}

func (r *record) liveHolds(now time.Time) []*hold {
	var live []*hold
	for _, each := range r.holds {
		if each.until.After(now) {
			live = append(live, each)
		}
	}
	return live
}

// workReaches is the latest end of a WORK hold, past or to come; zero if there is none.
func (r *record) workReaches() time.Time {
	at := r.workEnded
	for _, each := range r.holds {
		if each.kind == pb.HoldKind_HOLD_KIND_WORK {
			at = latest(at, each.until)
		}
	}
	return at
}

// presenceEnds is the latest end of a PRESENCE hold, past or to come. Of two at once the later one in the list.
func (r *record) presenceEnds() *presenceEnd {
	last := r.presenceEnded
	for _, each := range r.holds {
		if each.kind == pb.HoldKind_HOLD_KIND_PRESENCE && (last == nil || !each.until.Before(last.at)) {
			last = &presenceEnd{each.until, false}
		}
	}
	return last
}

// presenceDeadline is the later of the last PRESENCE end and the last activity, plus the grace; not before WORK is over.
func (r *record) presenceDeadline(work time.Time) time.Time {
	last := r.presenceEnds()
	if r.limits.presence == nil || last == nil {
		return time.Time{}
	}
	grace := r.limits.lostGrace
	if last.left {
		grace = r.limits.leaveGrace
	}
	return latest(latest(last.at, r.lastActivity).Add(grace), work)
}

// canExtend says whether an Extend would be accepted and could still move the expire time.
func (r *record) canExtend(now time.Time) bool {
	_, limit := r.deadlines(now).nearest()
	most := r.limits.maxExtensions
	return limit != absolute && (most < 0 || r.extensions < most || !r.limits.enforced)
}

// nextWarning is when the next warning is due if nothing else happens; zero if none is.
func (r *record) nextWarning(now time.Time) time.Time {
	if r.unenforced != nil {
		return time.Time{}
	}
	ends := r.deadlines(now)
	expire, limit := ends.nearest()
	at := expire
	due := func(deadline time.Time, points []time.Duration, fired int) {
		if fired < len(points) {
			if next := deadline.Add(-points[fired]); next.Before(at) {
				at = next
			}
		}
	}
	if limit == idle {
		due(ends.idle, r.limits.idlePoints, r.fired[idle])
	}
	due(ends.absolute, r.limits.absolutePoints, r.fired[absolute])
	if !at.Before(expire) {
		return time.Time{}
	}
	return at
}

// nextAction is when time does something to it, if nothing else happens.
func (r *record) nextAction(now time.Time) time.Time {
	if r.unenforced != nil {
		return r.forgottenAt()
	}
	at, _ := r.deadlines(now).nearest()
	if warning := r.nextWarning(now); !warning.IsZero() && warning.Before(at) {
		at = warning
	}
	// A hold that lapses brings a presence deadline.
	if end := r.plainDeadlines().presence; end.After(now) && end.Before(at) {
		at = end
	}
	return at
}

// forgottenAt is when a session that is only observed, and over, is forgotten: when nobody has used it for long.
func (r *record) forgottenAt() time.Time {
	used := latest(r.lastActivity, r.created, r.workReaches(), r.unenforced.at)
	if last := r.presenceEnds(); last != nil {
		used = latest(used, last.at)
	}
	return used.Add(r.limits.tombstoneTTL)
}

// ---- Requests ----

// remember keeps a request and its outcome: the last eight, and Create's for ever.
func (r *record) remember(request *wanted, now time.Time, outcome string, reply extendReply) {
	if request == nil {
		return
	}
	if len(r.requests) >= requestsRemembered {
		oldest := max(0, slices.IndexFunc(r.requests, func(known remembered) bool { return known.outcome != "created" }))
		r.requests = slices.Delete(r.requests, oldest, oldest+1)
	}
	r.requests = append(r.requests, remembered{*request, now, outcome, reply})
}

// recall is what a request was answered before; its outcome is "other content" if it said something else. nil: it never came.
func (r *record) recall(request *wanted, now time.Time) *remembered {
	if request == nil {
		return nil
	}
	for _, known := range r.requests {
		if known.key == request.key && (known.outcome == "created" || now.Sub(known.at) <= requestMemory) {
			if known.content != request.content {
				known.outcome = "other content"
			}
			return &known
		}
	}
	return nil
}

// reused is a request id that came before with other content.
var reused = &refused{"REQUEST_ID_REUSED", "this request_id came before with other content; use a fresh one for a new request"}
