package fake

import (
	"fmt"
	"slices"
	"time"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

// begin begins it: warned at once if that is inside a window; if it is only observed, perhaps after its end.
func (r *record) begin(now time.Time) {
	expire, limit := r.deadlines(now).nearest()
	if !r.limits.enforced && !now.Before(expire) {
		r.observe(limit, expire, now)
	}
	r.warn(now)
}

// letTimePass comes first: a deadline that has passed has passed for every command. Refused if it is over.
func (r *record) letTimePass(now time.Time) error {
	expire, limit := r.deadlines(now).nearest()
	over := !now.Before(expire)
	if r.tombstone == nil && over && r.limits.enforced {
		// A warning that was not pushed yet precedes the end.
		r.lapse(expire)
		r.warn(expire)
		r.endBy(r.timeout(limit, expire, now))
	}
	if r.tombstone != nil {
		return errOver
	}
	r.lapse(now)
	if over {
		r.observe(limit, expire, now)
	}
	return nil
}

// judge notes that nothing but time has passed.
func (r *record) judge(now time.Time) {
	if r.letTimePass(now) != nil {
		return
	}
	if r.unenforced != nil && !r.forgottenAt().After(now) {
		end := r.timeout(r.unenforced.limit, r.unenforced.at, now)
		end.silent = true
		r.endBy(end)
		return
	}
	r.warn(now)
}

// touch is activity, if it counts.
func (r *record) touch(said verdict, inputReport bool, idleFor time.Duration, now time.Time) (pb.TouchResult, error) {
	if err := r.letTimePass(now); err != nil {
		return 0, err
	}
	if !said.counts {
		return pb.TouchResult_TOUCH_RESULT_IGNORED, nil
	}
	activity := now
	if idleFor > 0 {
		activity = latest(now.Add(-idleFor), r.created)
	}
	if activity.Before(r.lastActivity) {
		return pb.TouchResult_TOUCH_RESULT_STALE, nil
	}
	before := r.plainDeadlines()
	r.active(activity, said.user())
	if r.extensions > 0 {
		r.extensions = 0
		r.version++
	}
	if inputReport && !r.reportsInput {
		r.reportsInput = true
		r.version++
	}
	r.revive(now)
	r.moved(before, pb.ClearedCause_CLEARED_CAUSE_TOUCHED, now)
	return pb.TouchResult_TOUCH_RESULT_COUNTED, nil
}

// extend says that the person pressed "stay". `by` is 0 for the idle timeout.
func (r *record) extend(by time.Duration, request *wanted, now time.Time) (extendReply, error) {
	if err := r.letTimePass(now); err != nil {
		return extendReply{}, err
	}
	if known := r.recall(request, now); known != nil {
		if known.outcome != "extended" {
			return extendReply{}, reused
		}
		return known.reply, nil
	}
	if most := r.limits.maxExtensions; r.limits.enforced && most >= 0 && r.extensions >= most {
		return extendReply{}, &refused{"EXTENSION_LIMIT", fmt.Sprintf("it was extended %d times in a row, the policy's max_extensions", most)}
	}
	before := r.plainDeadlines()
	expireBefore, _ := r.deadlines(now).nearest()
	r.active(latest(now, r.lastActivity), true)
	if by == 0 {
		by = r.limits.idleTimeout
	}
	if r.limits.atMost {
		by = min(by, r.limits.idleTimeout)
	}
	until := now.Add(by)
	// The deadline that stands, by a hold perhaps, is kept too: an answer promised it.
	r.extendedUntil = latest(before.idle, until)
	if r.extendedUntil.After(before.absolute) {
		r.extendedUntil = before.absolute
	}
	r.extensions++
	expire, _ := r.deadlines(now).nearest()
	reply := extendReply{max(expire.Sub(expireBefore), 0), until.After(before.absolute)}
	r.version++
	r.remember(request, now, "extended", reply)
	r.revive(now)
	r.moved(before, pb.ClearedCause_CLEARED_CAUSE_EXTENDED, now)
	return reply, nil
}

func (r *record) knownHold(id string) *hold {
	for _, each := range r.holds {
		if each.id == id {
			return each
		}
	}
	return nil
}

// hold begins or renews a hold.
func (r *record) hold(id string, kind pb.HoldKind, ttl time.Duration, purpose string, now time.Time) (holdReply, error) {
	if err := r.letTimePass(now); err != nil {
		return holdReply{}, err
	}
	may := &r.limits.work
	if kind == pb.HoldKind_HOLD_KIND_PRESENCE {
		may = r.limits.presence
	}
	if may == nil {
		return holdReply{}, &refused{"PRESENCE_OFF", "the session's policy does not use presence"}
	}
	known, live := r.knownHold(id), 0
	for _, each := range r.holds {
		if each.kind == kind {
			live++
		}
	}
	switch {
	case known != nil && known.kind != kind:
		return holdReply{}, &refused{"HOLD_KIND", "a live hold of this hold_id has the other kind"}
	case known == nil && live >= may.maxLive:
		return holdReply{}, &refused{"HOLD_CAP", fmt.Sprintf("it has as many live holds of this kind as the policy allows, %d", may.maxLive)}
	}
	before := r.plainDeadlines()
	until, clamped := now.Add(ttl), pb.HoldClamp_HOLD_CLAMP_UNSPECIFIED
	bound := func(at time.Time, clamp pb.HoldClamp) {
		if until.After(at) {
			until, clamped = at, clamp
		}
	}
	bound(now.Add(may.maxTTL), pb.HoldClamp_HOLD_CLAMP_MAX_TTL)
	isWork := kind == pb.HoldKind_HOLD_KIND_WORK
	if isWork && r.limits.enforced {
		from := r.budgetFrom
		if from.IsZero() {
			from = now
		}
		bound(from.Add(r.limits.budget), pb.HoldClamp_HOLD_CLAMP_BUDGET)
	}
	// An absolute deadline that is only observed refuses nothing once it has passed.
	if r.limits.enforced || before.absolute.After(now) {
		bound(before.absolute, pb.HoldClamp_HOLD_CLAMP_ABSOLUTE)
	}
	// A renewal never shortens what was granted.
	if known != nil {
		until = latest(until, known.until)
	}
	if !until.After(now) {
		return holdReply{}, &refused{"HOLD_BUDGET", fmt.Sprintf("work has held the session for %s, the policy's budget", r.limits.budget)}
	}
	if isWork && r.budgetFrom.IsZero() {
		r.budgetFrom = now
	}
	if known != nil {
		known.until = until
		if purpose != "" {
			known.purpose = purpose
		}
	} else {
		r.holds = append(r.holds, &hold{id, kind, purpose, now, until})
	}
	r.version++
	r.moved(before, pb.ClearedCause_CLEARED_CAUSE_HELD, now)
	return holdReply{until.Sub(now), clamped, known == nil}, nil
}

// release ends a hold. It answers whether there was one.
func (r *record) release(id string, now time.Time) (bool, error) {
	if err := r.letTimePass(now); err != nil {
		return false, err
	}
	known := r.knownHold(id)
	if known == nil {
		return false, nil
	}
	before := r.plainDeadlines()
	r.holds = slices.DeleteFunc(r.holds, func(each *hold) bool { return each == known })
	r.holdEnded(known, now, true)
	r.moved(before, pb.ClearedCause_CLEARED_CAUSE_RELEASED, now)
	// Work may have been all that kept a session whose browser is long gone.
	if expire, limit := r.deadlines(now).nearest(); !expire.After(now) {
		if r.limits.enforced {
			r.endBy(r.timeout(limit, expire, now))
		} else {
			r.observe(limit, expire, now)
		}
	}
	return true, nil
}

// end ends it now.
func (r *record) end(end *tombstone, now time.Time) error {
	if err := r.letTimePass(now); err != nil {
		return err
	}
	if r.recall(end.request, now) != nil {
		return reused
	}
	r.endBy(end)
	return nil
}

// rotation is what a Rotate says.
type rotation struct {
	to      string
	subject *string
	ago     *time.Duration // How long ago somebody proved who they are; nil if nobody did.
	level   string
	policy  *limits
	request *wanted
}

// rotate goes on under another name. It answers the session that goes on; nil if the same request rotated it into this one.
func (r *record) rotate(to rotation, now time.Time) (*record, error) {
	if err := r.letTimePass(now); err != nil {
		return nil, err
	}
	if known := r.recall(to.request, now); known != nil {
		if known.outcome != "rotated" {
			return nil, reused
		}
		return nil, nil
	}
	next := r.copied()
	next.ref, next.predecessor = to.to, r.ref
	next.version, next.extensions, next.fired, next.news = 1, 0, map[pb.Limit]int{}, nil
	if to.subject != nil {
		next.subject = *to.subject
	}
	if to.ago != nil {
		policy := to.policy
		if policy == nil {
			policy = r.limits
		}
		own := policy.stricter(r.limits.ownIdle, r.limits.ownAbsolute)
		if *to.ago >= own.absoluteTimeout && own.enforced {
			return nil, &refused{"ALREADY_PAST_LIMIT", fmt.Sprintf("authenticated_ago reaches the absolute timeout of %s", own.absoluteTimeout)}
		}
		// NIST SP 800-63B-4 section 5.2: reauthentication begins both deadlines anew.
		next.limits, next.authenticated, next.lastActivity, next.level = own, now.Add(-*to.ago), latest(now, r.lastActivity), to.level
		next.extendedUntil, next.budgetFrom, next.unenforced = time.Time{}, time.Time{}, nil
	}
	next.remember(to.request, now, "rotated", extendReply{})
	next.news = append(next.news, news{next.version, succeeded{next.copied()}})
	next.begin(now)
	r.clear(idle, pb.ClearedCause_CLEARED_CAUSE_ROTATED, now)
	r.clear(absolute, pb.ClearedCause_CLEARED_CAUSE_ROTATED, now)
	end := &tombstone{
		reason: pb.EndReason_END_REASON_ROTATED, actor: pb.Actor_ACTOR_SYSTEM, at: now, forgetAt: now.Add(r.limits.tombstoneTTL),
		successor: to.to, aliasUntil: now, request: to.request,
	}
	if to.ago == nil && next.subject == r.subject {
		end.aliasUntil = now.Add(aliasGrace)
	}
	end.forgetAt = latest(end.forgetAt, end.aliasUntil) // An alias needs its tombstone.
	r.endBy(end)
	return next, nil
}

// ---- What every command does ----

func (r *record) happened(what any) {
	r.version++
	r.news = append(r.news, news{r.version, what})
}

func (r *record) timeout(limit pb.Limit, at, now time.Time) *tombstone {
	return &tombstone{reason: timeoutReasons[limit], actor: pb.Actor_ACTOR_POLICY, at: at, forgetAt: now.Add(r.limits.tombstoneTTL)}
}

func (r *record) endBy(end *tombstone) {
	end.idleDeadline = r.plainDeadlines().idle
	r.tombstone = end
	r.happened(ended{end})
}

// lapse takes note of holds that have lapsed.
func (r *record) lapse(now time.Time) {
	live := r.liveHolds(now)
	var over []*hold
	for _, each := range r.holds {
		if !each.until.After(now) {
			over = append(over, each)
		}
	}
	slices.SortStableFunc(over, func(a, b *hold) int { return a.until.Compare(b.until) })
	r.holds = live
	for _, each := range over {
		r.holdEnded(each, each.until, false)
	}
}

func (r *record) holdEnded(over *hold, at time.Time, released bool) {
	if over.kind == pb.HoldKind_HOLD_KIND_WORK {
		r.workEnded = latest(r.workEnded, at)
	} else if r.presenceEnded == nil || !r.presenceEnded.at.After(at) {
		r.presenceEnded = &presenceEnd{at, released}
	}
	r.version++
}

func (r *record) active(at time.Time, user bool) {
	r.lastActivity = at
	if user && !r.budgetFrom.IsZero() {
		r.budgetFrom = time.Time{}
		r.version++
	}
}

// revive gives a session time again that only would have ended.
func (r *record) revive(now time.Time) {
	if expire, _ := r.deadlines(now).nearest(); r.unenforced != nil && expire.After(now) {
		r.unenforced = nil
		r.version++
	}
}

// observe notes the end that time would have brought, if the policy were enforced: once, until somebody is active again.
func (r *record) observe(limit pb.Limit, at, now time.Time) {
	if r.unenforced != nil {
		return
	}
	r.version++
	r.clear(idle, pb.ClearedCause_CLEARED_CAUSE_NOT_ENFORCED, now)
	r.clear(absolute, pb.ClearedCause_CLEARED_CAUSE_NOT_ENFORCED, now)
	r.unenforced = &unenforced{limit, at}
}

// moved withdraws warnings whose deadline moved, and warns anew if it is still near. Nothing here moves the absolute one.
func (r *record) moved(before deadlines, cause pb.ClearedCause, now time.Time) {
	if !r.plainDeadlines().idle.Equal(before.idle) {
		r.clear(idle, cause, now)
	}
	r.warn(now)
}

func (r *record) clear(limit pb.Limit, cause pb.ClearedCause, now time.Time) {
	if r.fired[limit] == 0 {
		return
	}
	delete(r.fired, limit)
	expire, _ := r.deadlines(now).nearest()
	r.happened(cleared{limit, cause, expire})
}

// warn fires the warning points that have been passed: those of one limit collapse into one warning, the smallest lead. Idle points
// fire only while inactivity is the nearest limit.
func (r *record) warn(now time.Time) {
	if r.unenforced != nil {
		return
	}
	ends, canExtend := r.deadlines(now), r.canExtend(now)
	fire := func(limit pb.Limit, points []time.Duration, deadline time.Time, helps bool) {
		count := 0
		for _, lead := range points {
			if !deadline.Add(-lead).After(now) {
				count++
			}
		}
		if count > r.fired[limit] {
			r.fired[limit] = count
			r.happened(warned{limit, points[count-1], deadline, helps})
		}
	}
	if _, limit := ends.nearest(); limit == idle {
		fire(idle, r.limits.idlePoints, ends.idle, canExtend)
	}
	fire(absolute, r.limits.absolutePoints, ends.absolute, false)
}
