// The life of one session: a record, what is asked of it, and what happens to it. It has no clock and does no I/O: `now` is an argument,
// and what watchers are told is left in `news`. The same rules as the sidecar's own state machine, in its words. Moments are
// milliseconds since 1970.

import type { Actor, ClearedCause, EndReason, HoldClamp, Milliseconds } from '../words.js';
import { type Limits, stricter, type Verdict } from './policy.js';

export type Moment = number;
type Timeout = 'IDLE' | 'ABSOLUTE' | 'PRESENCE';
type Warnable = 'IDLE' | 'ABSOLUTE';

const ALIAS_GRACE = 5_000;
const REQUEST_MEMORY = 600_000;
const REQUESTS_REMEMBERED = 8;
export const REASONS = { IDLE: 'IDLE_TIMEOUT', ABSOLUTE: 'ABSOLUTE_TIMEOUT', PRESENCE: 'BROWSER_CLOSED' } as const satisfies Record<Timeout, EndReason>;

/** A command that the record refuses, in one word of the API; SESSION_ENDED if it is over. */
export class Refused extends Error {
  constructor(readonly reason: string, message: string) {
    super(`${reason}: ${message}`);
  }
}

/** A request id that came before with other content. */
export const reused = () => new Refused('REQUEST_ID_REUSED', 'this request_id came before with other content; use a fresh one for a new request');

/** Hashes of a request id, and of all else that the request says. */
export interface Request {
  readonly key: string;
  readonly content: string;
}

/** What a request came to. */
export type Outcome = ExtendReply | 'created' | 'rotated';

export interface Hold {
  readonly id: string;
  readonly kind: 'WORK' | 'PRESENCE';
  purpose: string;
  readonly started: Moment;
  until: Moment;
}

/** When a session ends by each limit, if nothing else happens. */
export interface Deadlines {
  readonly idle: Moment;
  readonly absolute: Moment;
  readonly presence: Moment | undefined;
}

/** The one formula. On a tie the absolute one, and any other rather than presence. */
export function nearest({ idle, absolute, presence }: Deadlines): { at: Moment; limit: Timeout } {
  const plain = idle < absolute ? { at: idle, limit: 'IDLE' as const } : { at: absolute, limit: 'ABSOLUTE' as const };
  return presence !== undefined && presence < plain.at ? { at: presence, limit: 'PRESENCE' } : plain;
}

/** How a session ended. A silent end is told to nobody: a session that is only observed was forgotten. */
export interface Tombstone {
  readonly reason: EndReason;
  readonly actor: Actor;
  readonly at: Moment;
  readonly forgetAt: Moment;
  readonly actorId?: string;
  readonly note?: string;
  readonly idleDeadline?: Moment;
  readonly successor?: string;
  readonly aliasUntil?: Moment;
  readonly request?: Request | undefined;
  readonly silent?: boolean;
}

/** What watchers are told. */
export type News =
  | { readonly kind: 'warning'; readonly limit: Warnable; readonly point: Milliseconds; readonly expire: Moment; readonly canExtend: boolean }
  | { readonly kind: 'cleared'; readonly limit: Warnable; readonly cause: ClearedCause; readonly expire: Moment }
  /** It goes on in the place of another one: as it was then. */
  | { readonly kind: 'succeeded'; readonly record: Session }
  | { readonly kind: 'ended'; readonly tombstone: Tombstone };

/** How far the expire time moved, and whether the absolute deadline cut it short. */
export interface ExtendReply {
  readonly granted: Milliseconds;
  readonly clamped: boolean;
}

export interface HoldReply {
  readonly granted: Milliseconds;
  readonly clamped: HoldClamp | undefined;
  readonly created: boolean;
}

type Born = Pick<Session, 'ref' | 'tenant' | 'subject' | 'labels' | 'limits' | 'created' | 'authenticated' | 'lastActivity' | 'authenticationLevel'>;

/** A session. */
export class Session {
  ref!: string;
  tenant!: string;
  subject!: string;
  labels!: Readonly<Record<string, string>>;
  limits!: Limits;
  created!: Moment;
  authenticated!: Moment;
  lastActivity!: Moment;
  authenticationLevel!: string;
  predecessor = '';
  version = 1;
  extensions = 0;
  /** How many warning points of a limit have fired, while its warning stands. */
  fired: Partial<Record<Warnable, number>> = {};
  holds: Hold[] = [];
  extendedUntil: Moment | undefined;
  workEnded: Moment | undefined;
  /** The first WORK hold since the last surely human activity: the budget counts from here. */
  budgetFrom: Moment | undefined;
  /** When the last open page went, and whether it was left; else it was lost sight of. */
  presenceEnded: { at: Moment; left: boolean } | undefined;
  reportsInput = false;
  /** The limit that would have ended it, and when, if its policy were enforced. */
  unenforced: { limit: Timeout; at: Moment } | undefined;
  requests: { request: Request; at: Moment; outcome: Outcome }[] = [];
  tombstone: Tombstone | undefined;
  news: { version: number; what: News }[] = [];

  constructor(born: Born) {
    Object.assign(this, born);
  }

  copy(): Session {
    const { fired, holds, requests } = this;
    return Object.assign(new Session(this), this, { fired: { ...fired }, holds: holds.map((hold) => ({ ...hold })), requests: [...requests], news: [] });
  }

  // ---- Deadlines ----

  /** The deadlines in force: there is no presence deadline while a hold lives. */
  deadlines(now: Moment): Deadlines {
    const plain = this.plainDeadlines();
    return this.liveHolds(now).length ? { ...plain, presence: undefined } : plain;
  }

  /** Each as it will be if nothing else happens: live holds lapse at their time. */
  plainDeadlines(): Deadlines {
    const work = this.#workReaches();
    const idle = Math.max(this.lastActivity, work ?? this.lastActivity) + this.limits.idleTimeout;
    return {
      idle: Math.max(idle, this.extendedUntil ?? idle),
      absolute: this.authenticated + this.limits.absoluteTimeout,
      presence: this.#presenceDeadline(work),
    };
  }

  liveHolds(now: Moment): Hold[] {
    return this.holds.filter((hold) => hold.until > now);
  }

  /** The latest end of a WORK hold, past or to come. */
  #workReaches(): Moment | undefined {
    const ends = this.holds.filter((hold) => hold.kind === 'WORK').map((hold) => hold.until);
    if (this.workEnded !== undefined) ends.push(this.workEnded);
    return ends.length ? Math.max(...ends) : undefined;
  }

  /** The latest end of a PRESENCE hold, past or to come, and whether it was left. */
  #presenceEnds() {
    let last = this.presenceEnded;
    // Of two at once the later one in the list.
    for (const hold of this.holds) if (hold.kind === 'PRESENCE' && (!last || hold.until >= last.at)) last = { at: hold.until, left: false };
    return last;
  }

  /** The later of the last PRESENCE end and the last activity, plus the grace; not before WORK is over. */
  #presenceDeadline(work: Moment | undefined): Moment | undefined {
    const last = this.#presenceEnds();
    if (!this.limits.presence || !last) return undefined;
    const deadline = Math.max(last.at, this.lastActivity) + (last.left ? this.limits.leaveGrace : this.limits.lostGrace);
    return Math.max(deadline, work ?? deadline);
  }

  /** Whether an Extend would be accepted and could still move the expire time. */
  canExtend(now: Moment): boolean {
    const { maxExtensions = Infinity, enforced } = this.limits;
    return nearest(this.deadlines(now)).limit !== 'ABSOLUTE' && (this.extensions < maxExtensions || !enforced);
  }

  /** When the next warning is due if nothing else happens. */
  nextWarning(now: Moment): Moment | undefined {
    if (this.unenforced) return undefined;
    const deadlines = this.deadlines(now);
    const { at: expire, limit } = nearest(deadlines);
    const { IDLE, ABSOLUTE } = this.limits.points;
    const idle = IDLE[this.fired.IDLE ?? 0];
    const absolute = ABSOLUTE[this.fired.ABSOLUTE ?? 0];
    const due = Math.min(
      limit === 'IDLE' && idle !== undefined ? deadlines.idle - idle : expire,
      absolute !== undefined ? deadlines.absolute - absolute : expire,
    );
    return due < expire ? due : undefined;
  }

  /** When time does something to it, if nothing else happens. */
  nextAction(now: Moment): Moment {
    if (this.unenforced) return this.#forgottenAt();
    const due = [nearest(this.deadlines(now)).at, this.nextWarning(now) ?? Infinity];
    // A hold that lapses brings a presence deadline.
    const { presence } = this.plainDeadlines();
    if (presence !== undefined && presence > now) due.push(presence);
    return Math.min(...due);
  }

  /** When a session that is only observed, and over, is forgotten: when nobody has used it for long. */
  #forgottenAt(): Moment {
    const used = [this.lastActivity, this.created, this.#workReaches(), this.#presenceEnds()?.at, this.unenforced?.at];
    return Math.max(...used.filter((at) => at !== undefined)) + this.limits.tombstoneTtl;
  }

  // ---- Commands ----

  /** It begins: warned at once if that is inside a window; if it is only observed, perhaps after its end. */
  begin(now: Moment) {
    const { at, limit } = nearest(this.deadlines(now));
    if (!this.limits.enforced && now >= at) this.#observe(limit, at, now);
    this.#warn(now);
  }

  /** Time comes first: a deadline that has passed has passed for every command. Refused if it is over. */
  letTimePass(now: Moment) {
    const { at, limit } = nearest(this.deadlines(now));
    if (!this.tombstone && now >= at && this.limits.enforced) {
      // A warning that was not pushed yet precedes the end.
      this.#lapse(at);
      this.#warn(at);
      this.#end(this.#timeout(limit, at, now));
    }
    if (this.tombstone) throw new Refused('SESSION_ENDED', 'the session has ended');
    this.#lapse(now);
    if (now >= at) this.#observe(limit, at, now);
  }

  /** Nothing but that time has passed. */
  judge(now: Moment) {
    try {
      this.letTimePass(now);
    } catch (error) {
      if (error instanceof Refused) return;
      throw error;
    }
    if (this.unenforced && this.#forgottenAt() <= now) this.#end({ ...this.#timeout(this.unenforced.limit, this.unenforced.at, now), silent: true });
    else this.#warn(now);
  }

  /** Activity, if it counts. Answers what became of it, in the API's word. */
  touch(verdict: Verdict, inputReport: boolean, idleFor: Milliseconds, now: Moment): 'IGNORED' | 'STALE' | 'COUNTED' {
    this.letTimePass(now);
    if (!verdict.counts) return 'IGNORED';
    const activity = idleFor ? Math.max(now - idleFor, this.created) : now;
    if (activity < this.lastActivity) return 'STALE';
    const before = this.plainDeadlines();
    this.#active(activity, verdict.user);
    if (this.extensions) {
      this.extensions = 0;
      this.version++;
    }
    if (inputReport && !this.reportsInput) {
      this.reportsInput = true;
      this.version++;
    }
    this.#revive(now);
    this.#moved(before, 'TOUCHED', now);
    return 'COUNTED';
  }

  /** The person pressed "stay". */
  extend(wanted: Milliseconds | undefined, request: Request | undefined, now: Moment): ExtendReply {
    this.letTimePass(now);
    const known = this.recall(request, now);
    if (typeof known === 'object') return known;
    if (known) throw reused();
    const { limits } = this;
    if (limits.enforced && limits.maxExtensions !== undefined && this.extensions >= limits.maxExtensions) {
      throw new Refused('EXTENSION_LIMIT', `it was extended ${limits.maxExtensions} times in a row, the policy's max_extensions`);
    }
    const before = this.plainDeadlines();
    const expireBefore = nearest(this.deadlines(now)).at;
    this.#active(Math.max(now, this.lastActivity), true);
    const until = Math.min(now + (wanted ?? limits.idleTimeout), limits.atMost ? now + limits.idleTimeout : Infinity);
    // The deadline that stands, by a hold perhaps, is kept too: an answer promised it.
    this.extendedUntil = Math.min(Math.max(before.idle, until), before.absolute);
    this.extensions++;
    const reply = { granted: Math.max(nearest(this.deadlines(now)).at - expireBefore, 0), clamped: until > before.absolute };
    this.version++;
    this.remember(request, now, reply);
    this.#revive(now);
    this.#moved(before, 'EXTENDED', now);
    return reply;
  }

  /** Begins or renews a hold. */
  hold(id: string, kind: Hold['kind'], ttl: Milliseconds, purpose: string, now: Moment): HoldReply {
    this.letTimePass(now);
    const { limits } = this;
    const may = kind === 'WORK' ? limits.work : limits.presence;
    if (!may) throw new Refused('PRESENCE_OFF', "the session's policy does not use presence");
    const known = this.holds.find((hold) => hold.id === id);
    if (known && known.kind !== kind) throw new Refused('HOLD_KIND', 'a live hold of this hold_id has the other kind');
    if (!known && this.holds.filter((hold) => hold.kind === kind).length >= may.maxLive) {
      throw new Refused('HOLD_CAP', `it has as many live holds of this kind as the policy allows, ${may.maxLive}`);
    }
    const before = this.plainDeadlines();
    const bounds: [Moment, HoldClamp][] = [[now + may.maxTtl, 'MAX_TTL']];
    if (kind === 'WORK' && limits.enforced) bounds.push([(this.budgetFrom ?? now) + limits.budget, 'BUDGET']);
    // An absolute deadline that is only observed refuses nothing once it has passed.
    if (limits.enforced || before.absolute > now) bounds.push([before.absolute, 'ABSOLUTE']);
    let until = now + ttl;
    let clamped: HoldClamp | undefined;
    for (const [bound, clamp] of bounds) if (until > bound) [until, clamped] = [bound, clamp];
    // A renewal never shortens what was granted.
    until = Math.max(until, known?.until ?? until);
    if (until <= now) throw new Refused('HOLD_BUDGET', `work has held the session for ${limits.budget} ms, the policy's budget`);
    if (kind === 'WORK') this.budgetFrom ??= now;
    if (known) Object.assign(known, { until, purpose: purpose || known.purpose });
    else this.holds.push({ id, kind, purpose, started: now, until });
    this.version++;
    this.#moved(before, 'HELD', now);
    return { granted: until - now, clamped, created: !known };
  }

  /** Ends a hold. Answers whether there was one. */
  release(id: string, now: Moment): boolean {
    this.letTimePass(now);
    const known = this.holds.find((hold) => hold.id === id);
    if (!known) return false;
    const before = this.plainDeadlines();
    this.holds = this.holds.filter((hold) => hold !== known);
    this.#holdEnded(known, now, true);
    this.#moved(before, 'RELEASED', now);
    // Work may have been all that kept a session whose browser is long gone.
    const { at, limit } = nearest(this.deadlines(now));
    if (at <= now && this.limits.enforced) this.#end(this.#timeout(limit, at, now));
    else if (at <= now) this.#observe(limit, at, now);
    return true;
  }

  /** Ends it now. */
  end(end: Tombstone, now: Moment) {
    this.letTimePass(now);
    if (this.recall(end.request, now)) throw reused();
    this.#end(end);
  }

  /** Goes on under another name. Answers the session that goes on; undefined if the same request rotated it into this one. */
  rotate(
    to: string,
    { subject, authenticatedAgo, authenticationLevel }: { subject?: string | undefined; authenticatedAgo?: Milliseconds | undefined; authenticationLevel: string },
    policy: Limits | undefined,
    request: Request | undefined,
    now: Moment,
  ): Session | undefined {
    this.letTimePass(now);
    const known = this.recall(request, now);
    if (known === 'rotated') return undefined;
    if (known) throw reused();
    const successor = Object.assign(this.copy(), { ref: to, predecessor: this.ref, version: 1, extensions: 0, fired: {}, subject: subject ?? this.subject });
    if (authenticatedAgo !== undefined) {
      const limits = stricter(policy ?? this.limits, this.limits.own);
      if (authenticatedAgo >= limits.absoluteTimeout && limits.enforced) {
        throw new Refused('ALREADY_PAST_LIMIT', `authenticated_ago reaches the absolute timeout of ${limits.absoluteTimeout} ms`);
      }
      // NIST SP 800-63B-4 section 5.2: reauthentication begins both deadlines anew.
      Object.assign(successor, { limits, authenticationLevel, authenticated: now - authenticatedAgo, lastActivity: Math.max(now, this.lastActivity) });
      successor.extendedUntil = successor.budgetFrom = successor.unenforced = undefined;
    }
    successor.remember(request, now, 'rotated');
    successor.news.push({ version: successor.version, what: { kind: 'succeeded', record: successor.copy() } });
    successor.begin(now);
    this.#clear('IDLE', 'ROTATED', now);
    this.#clear('ABSOLUTE', 'ROTATED', now);
    const trusted = authenticatedAgo === undefined && successor.subject === this.subject;
    const aliasUntil = trusted ? now + ALIAS_GRACE : now;
    // An alias needs its tombstone.
    const forgetAt = Math.max(now + this.limits.tombstoneTtl, aliasUntil);
    this.#end({ reason: 'ROTATED', actor: 'SYSTEM', at: now, forgetAt, successor: to, aliasUntil, request });
    return successor;
  }

  // ---- Requests ----

  /** Remembers a request and its outcome: the last eight, and Create's for ever. */
  remember(request: Request | undefined, now: Moment, outcome: Outcome) {
    if (!request) return;
    if (this.requests.length >= REQUESTS_REMEMBERED) this.requests.splice(Math.max(this.requests.findIndex((known) => known.outcome !== 'created'), 0), 1);
    this.requests.push({ request, at: now, outcome });
  }

  /** What a request was answered before; "other content" if it said something else. */
  recall(request: Request | undefined, now: Moment): Outcome | 'other content' | undefined {
    if (!request) return undefined;
    const known = this.requests.find((each) => each.request.key === request.key && (each.outcome === 'created' || now - each.at <= REQUEST_MEMORY));
    return known && (known.request.content === request.content ? known.outcome : 'other content');
  }

  // ---- What every command does ----

  #happened(what: News) {
    this.version++;
    this.news.push({ version: this.version, what });
  }

  #timeout(limit: Timeout, at: Moment, now: Moment): Tombstone {
    return { reason: REASONS[limit], actor: 'POLICY', at, forgetAt: now + this.limits.tombstoneTtl };
  }

  #end(end: Tombstone) {
    this.tombstone = { ...end, idleDeadline: this.plainDeadlines().idle };
    this.#happened({ kind: 'ended', tombstone: this.tombstone });
  }

  /** Takes note of holds that have lapsed. */
  #lapse(now: Moment) {
    const over = this.holds.filter((hold) => hold.until <= now).sort((one, other) => one.until - other.until);
    this.holds = this.liveHolds(now);
    for (const hold of over) this.#holdEnded(hold, hold.until, false);
  }

  #holdEnded(hold: Hold, at: Moment, left: boolean) {
    if (hold.kind === 'WORK') this.workEnded = Math.max(this.workEnded ?? at, at);
    else if (!this.presenceEnded || this.presenceEnded.at <= at) this.presenceEnded = { at, left };
    this.version++;
  }

  #active(activity: Moment, user: boolean) {
    this.lastActivity = activity;
    if (user && this.budgetFrom !== undefined) {
      this.budgetFrom = undefined;
      this.version++;
    }
  }

  /** Activity gives a session time again that only would have ended. */
  #revive(now: Moment) {
    if (this.unenforced && nearest(this.deadlines(now)).at > now) {
      this.unenforced = undefined;
      this.version++;
    }
  }

  /** Notes the end that time would have brought, if the policy were enforced: once, until somebody is active again. */
  #observe(limit: Timeout, at: Moment, now: Moment) {
    if (this.unenforced) return;
    this.version++;
    this.#clear('IDLE', 'NOT_ENFORCED', now);
    this.#clear('ABSOLUTE', 'NOT_ENFORCED', now);
    this.unenforced = { limit, at };
  }

  /** Withdraws warnings whose deadline moved, and warns anew if it is still near. Nothing here moves the absolute one. */
  #moved(before: Deadlines, cause: ClearedCause, now: Moment) {
    if (this.plainDeadlines().idle !== before.idle) this.#clear('IDLE', cause, now);
    this.#warn(now);
  }

  #clear(limit: Warnable, cause: ClearedCause, now: Moment) {
    if (!this.fired[limit]) return;
    delete this.fired[limit];
    this.#happened({ kind: 'cleared', limit, cause, expire: nearest(this.deadlines(now)).at });
  }

  /** Fires the warning points that have been passed: those of one limit collapse into one warning, the smallest lead. Idle points fire
   * only while inactivity is the nearest limit. */
  #warn(now: Moment) {
    if (this.unenforced) return;
    const deadlines = this.deadlines(now);
    const canExtend = this.canExtend(now);
    const sides: [Warnable, Moment, boolean][] = [['ABSOLUTE', deadlines.absolute, false]];
    if (nearest(deadlines).limit === 'IDLE') sides.unshift(['IDLE', deadlines.idle, canExtend]);
    for (const [limit, deadline, helps] of sides) {
      const points = this.limits.points[limit];
      const count = points.filter((lead) => deadline - lead <= now).length;
      if (count <= (this.fired[limit] ?? 0)) continue;
      this.fired[limit] = count;
      this.#happened({ kind: 'warning', limit, point: points[count - 1]!, expire: deadline, canExtend: helps });
    }
  }
}
