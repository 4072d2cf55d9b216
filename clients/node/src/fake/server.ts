// The verbs of the wire, answered in this process over the sessions of `model` and a clock of its own: words in, words out.

import { createHmac, randomBytes } from 'node:crypto';
import type { DescMethod, Message } from '@bufbuild/protobuf';
import { type Failure, failure } from '../errors.js';
import type { WatchExpiryRequest } from '../proto/sessionsidecar/v1/session_service_pb.js';
import { Failed } from '../transport.js';
import { message, plain } from '../wire.js';
import type { Actor, EndReason, Milliseconds, SessionState } from '../words.js';
import * as answers from './answers.js';
import { type Entry, Feed, follow } from './feed.js';
import { type Moment, nearest, Refused, type Request, reused, Session, type Tombstone } from './model.js';
import { judge, type Limits, stricter } from './policy.js';
import * as read from './requests.js';

const [MOST_TOUCHES, MOST_CHECKS, MOST_SPARED, MOST_REFS] = [1000, 100, 100, 1000];
const READING_METHODS = ['', 'GET', 'HEAD', 'OPTIONS'];
const EXHAUSTED = ['HOLD_CAP', 'HOLD_BUDGET', 'SUBJECT_CAP'];
const CODES: Record<string, number> = { INVALID_ARGUMENT: 3, NOT_FOUND: 5, ALREADY_EXISTS: 6, PERMISSION_DENIED: 7, RESOURCE_EXHAUSTED: 8, FAILED_PRECONDITION: 9 };

/** A request in the client's words, as plain() makes them. */
type Words = any;
type Leads = (end: Tombstone) => boolean;

/** Whether a former id led to its successor at a time. Never over a login, which leaves no alias: whoever knew the id before it is not
 * the one who logged in. */
const led = ({ aliasUntil, at }: Tombstone, when: Moment) => aliasUntil !== undefined && aliasUntil > at && when < aliasUntil;

/** What is to be done at a time of the fake's clock, and after how long again. */
interface Alarm {
  at: Moment;
  readonly ring: () => Promise<Milliseconds | undefined>;
}

/** The sessions of a fake, the policies, the clock, and the log of what happened. */
export class Server {
  now: Moment = Date.now();
  readonly log: Entry[] = [];
  readonly epoch = randomBytes(8).toString('hex');
  readonly tenants: readonly string[];
  readonly #policies: ReadonlyMap<string, Limits>;
  readonly #key = randomBytes(32);
  readonly #sessions = new Map<string, Session>();
  readonly #alarms = new Set<Alarm>();
  #waiting: (() => void)[] = [];

  constructor(policies: ReadonlyMap<string, Limits>, tenants: Iterable<string>) {
    this.#policies = policies;
    this.tenants = [...tenants];
  }

  /** Answers a call. Throws Failed. */
  ask(method: DescMethod, request: Message): Message {
    this.#catchUp();
    const verb = this.#verbs[method.name];
    if (!verb) throw new Failed(failure('UNIMPLEMENTED', 'the fake keeps no histories, counts or lint findings: ask `session-sidecar serve --dev`'));
    return message(method.output, verb(plain(method.input, request)));
  }

  /** Opens a stream. Throws Failed. */
  watch(request: WatchExpiryRequest): Feed {
    this.#catchUp();
    return new Feed(this, request);
  }

  // ---- Time ----

  /** Moves the clock from one thing that is due to the next, so that each happens at its own time. */
  async advance(by: Milliseconds): Promise<Date> {
    if (!(by >= 0)) throw new TypeError('the clock only goes forward: advance by 0 ms or more');
    const until = this.now + by;
    for (let due = this.#due(); due <= until; due = this.#due()) {
      this.now = Math.max(this.now, due);
      this.#catchUp();
      await this.#ring();
    }
    this.now = until;
    return new Date(until);
  }

  async #ring() {
    for (const alarm of this.#alarms) {
      if (alarm.at > this.now) continue;
      const after = await alarm.ring();
      if (after === undefined) this.#alarms.delete(alarm);
      else alarm.at = this.now + after;
      return;
    }
  }

  #due(): Moment {
    return Math.min(...this.#live().map((session) => session.nextAction(this.now)), ...[...this.#alarms].map((alarm) => alarm.at), Infinity);
  }

  /** Whatever is due by now happens, in order. */
  #catchUp() {
    const due = this.#live().map((session) => ({ session, at: session.nextAction(this.now) })).filter(({ at }) => at <= this.now);
    for (const { session } of due.sort((one, other) => one.at - other.at)) {
      session.judge(this.now);
      this.#publish(session);
    }
  }

  /** Rings after so long by this clock, and again after as long as it answers. Answers what silences it. */
  alarm(after: Milliseconds, ring: Alarm['ring']): () => void {
    const alarm = { at: this.now + after, ring };
    this.#alarms.add(alarm);
    return () => this.#alarms.delete(alarm);
  }

  // ---- Names ----

  /** So many bytes that nobody can guess, and that the same words always give. */
  #madeOf(size: number, ...words: string[]): string {
    return createHmac('sha256', this.#key).update(JSON.stringify(words)).digest().subarray(0, size).toString('base64url');
  }

  #ref(tenant: string, sessionId: string): string {
    return this.#madeOf(16, 'ref', tenant, sessionId);
  }

  #live(): Session[] {
    return [...this.#sessions.values()].filter((session) => !session.tombstone);
  }

  /** The refs of all sessions that were known. */
  refs(): string[] {
    return [...this.#sessions.keys()];
  }

  /** A session that is live or remembered. */
  find(ref: string): Session | undefined {
    const session = this.#sessions.get(ref);
    const end = session?.tombstone;
    if (!end || !(end.silent || end.forgetAt <= this.now)) return session;
    this.#sessions.delete(ref);
    return undefined;
  }

  /** Whoever looks at a session whose deadline has passed takes note of that: it may live on, only observed. */
  examined(session: Session): Session {
    if (!session.tombstone && nearest(session.deadlines(this.now)).at <= this.now) {
      session.judge(this.now);
      this.#publish(session);
    }
    return session;
  }

  #findOwn(tenant: string, ref: string): Session | undefined {
    const session = this.find(ref);
    return session?.tenant === tenant ? this.examined(session) : undefined;
  }

  /** The session that goes on in the place of an ended one, perhaps ended itself; undefined if that leads nowhere. */
  #successor(session: Session, leads: Leads): Session | undefined {
    let end = session.tombstone;
    if (!end || !leads(end)) return undefined;
    for (;;) {
      const successor = this.find(end.successor ?? '');
      if (!successor?.tombstone || !leads(successor.tombstone)) return successor;
      end = successor.tombstone;
    }
  }

  #isAlias: Leads = ({ aliasUntil }) => aliasUntil !== undefined && this.now < aliasUntil;

  /** The live session that an id leads to, and whether by way of a former one. */
  #lead(tenant: string, sessionId: string, leads: Leads = this.#isAlias): { session: Session; alias: boolean } {
    const ref = this.#ref(tenant, sessionId);
    const session = this.find(ref);
    if (!session) {
      this.#refuseRef('session_id', tenant, sessionId);
      this.#longEnough('session_id', sessionId, Math.min(...[...this.#policies.values()].map((limits) => limits.minIdLength)));
      throw unknown(ref);
    }
    if (!session.tombstone) return { session, alias: false };
    const successor = this.#successor(session, leads);
    if (!successor || successor.tombstone) throw ended(successor ?? session);
    return { session: successor, alias: true };
  }

  /** The same; for a hold that lives, also by a former id whose grace is over, if that led here when the hold began. */
  #holder(tenant: string, sessionId: string, holdId: string) {
    try {
      return this.#lead(tenant, sessionId);
    } catch (over) {
      if (failureOf(over)?.reason !== 'SESSION_ENDED') throw over;
      try {
        const { session } = this.#lead(tenant, sessionId, (end) => !!end.successor);
        const hold = session.liveHolds(this.now).find((each) => each.id === holdId);
        if (hold) return this.#lead(tenant, sessionId, (end) => led(end, hold.started));
      } catch (error) {
        if (!(error instanceof Failed)) throw error;
      }
      throw over;
    }
  }

  #refuseRef(field: string, tenant: string, sessionId: string) {
    if (read.isRef(sessionId) && this.#findOwn(tenant, sessionId)) throw read.invalid(field, "is a session_ref; a session's id is needed here (a ref is no credential)");
  }

  #longEnough(field: string, sessionId: string, least: number) {
    if (sessionId.length < least) throw read.invalid(field, `is too short: at least ${least} bytes are needed`);
  }

  /** A tenant that is served. */
  ownTenant(field: string, tenant: string): string {
    read.visible(field, tenant, 0, 128);
    if (this.tenants.includes(tenant)) return tenant;
    throw new Failed(failure('PERMISSION_DENIED', `${field}: this caller may not name this tenant: the \`tenants\` of its listener, or of its entry in [[callers]], decide that`, 'CALLER_NOT_ALLOWED'));
  }

  /** The ref of a session that is named by its id or ref. */
  named(tenant: string, field: string, name: Words): string {
    if ('sessionRef' in name) return read.sessionRef(`${field}session_ref`, name.sessionRef);
    if (!('sessionId' in name)) throw read.invalid(`${field}session_id`, 'is required, or session_ref in its place');
    const sessionId = read.sessionId(`${field}session_id`, name.sessionId);
    this.#refuseRef(`${field}session_id`, tenant, sessionId);
    return this.#ref(tenant, sessionId);
  }

  // ---- What happens ----

  /** Lets a session decide, and tells what happened. */
  #act<T>(session: Session, command: (session: Session) => T, told = true): T {
    try {
      return command(session);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.reason === 'SESSION_ENDED') throw ended(session);
      throw refused(error.reason, error.message, error.reason === 'ALREADY_PAST_LIMIT' ? undefined : session);
    } finally {
      if (told) this.#publish(session);
    }
  }

  /** Writes into the log what happened to a session. */
  #publish(session: Session) {
    for (const { version, what } of session.news.splice(0)) {
      if (what.kind === 'ended' && what.tombstone.silent) continue;
      const successor = what.kind === 'ended' ? (what.tombstone.successor ?? '') : '';
      const { ref, tenant, subject } = session;
      this.log.push({ ref, tenant, subject, kind: what.kind, emitTime: new Date(this.now), told: answers.told(session, version, what, this.now), successor });
    }
    this.tell();
  }

  /** Wakes those who wait for something to happen. */
  tell() {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Until something happens. */
  changed(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Tells watchers that the sidecar is about to stop. */
  drain() {
    this.log.push({ ref: '', tenant: '', subject: '', kind: 'draining', emitTime: new Date(this.now), told: { draining: {} }, successor: '' });
    this.tell();
  }

  // ---- Verbs ----

  readonly #verbs: Record<string, (request: Words) => object> = {
    Create: (request) => this.#create(request),
    Touch: (request) => this.#touch(request),
    BatchTouch: ({ touches }) => {
      read.within('touches', touches.length, MOST_TOUCHES);
      return { outcomes: touches.map((touch: Words) => this.#outcome(() => ({ touch: this.#touch(touch) }))) };
    },
    Check: (request) => this.#check(request),
    Extend: (request) => this.#extend(request),
    Hold: (request) => this.#hold(request),
    Release: (request) => this.#release(request),
    Rotate: (request) => this.#rotate(request),
    End: (request) => this.#end(request),
    ListSessions: (request) => this.#listSessions(request),
    EndSessions: (request) => this.#endSessions(request),
  };

  #outcome(ask: () => object): object {
    try {
      return ask();
    } catch (error) {
      const told = failureOf(error);
      if (!told) throw error;
      const sessionRef = told.metadata['session_ref'] ?? '';
      const over = told.reason === 'SESSION_ENDED' ? this.find(sessionRef)?.tombstone : undefined;
      return { error: { code: CODES[told.code], message: told.message, reason: told.reason, sessionRef, end: over && answers.end(over) } };
    }
  }

  #create(request: Words) {
    const tenant = this.ownTenant('tenant', request.tenant);
    const own = request.sessionId ? read.sessionId('session_id', request.sessionId) : '';
    const subject = read.text('subject', request.subject, 256);
    const policy = read.text('policy', request.policy, 128) || 'default';
    const labels = read.labels('labels', request.labels);
    const idleTimeout = read.spanOver0('idle_timeout', request.idleTimeout);
    const absoluteTimeout = read.spanOver0('absolute_timeout', request.absoluteTimeout);
    const authenticatedAgo = read.span('authenticated_ago', request.authenticatedAgo) ?? 0;
    const authenticationLevel = read.visible('authentication_level', request.authenticationLevel, 0, 64);
    const idleFor = read.span('idle_for', request.idleFor) ?? 0;
    const wanted = read.requestId('Create', request);
    const sessionId = own || (wanted ? this.#madeOf(32, 'id', tenant, wanted.key) : randomBytes(32).toString('base64url'));
    const ref = this.#ref(tenant, sessionId);
    const known = this.find(ref);
    if (wanted && known && !known.tombstone) return this.#createdBefore(sessionId, known, wanted);
    const plainLimits = this.#policies.get(policy);
    if (!plainLimits) throw refused('POLICY_UNKNOWN', `there is no policy of this name; there are: ${[...this.#policies.keys()].sort().join(', ')}`);
    if (own) {
      this.#refuseRef('session_id', tenant, own);
      this.#longEnough('session_id', own, plainLimits.minIdLength);
    }
    for (const [field, given, most] of [['idle_timeout', idleTimeout, plainLimits.idleTimeout], ['absolute_timeout', absoluteTimeout, plainLimits.absoluteTimeout]] as const) {
      if (given !== undefined && given > most) throw read.invalid(field, `may only be stricter than the policy: at most ${most} ms`);
    }
    const limits = stricter(plainLimits, { idleTimeout, absoluteTimeout });
    if (limits.enforced && idleFor >= limits.idleTimeout) throw refused('ALREADY_PAST_LIMIT', `idle_for reaches the idle timeout of ${limits.idleTimeout} ms`);
    if (limits.enforced && authenticatedAgo >= limits.absoluteTimeout) {
      throw refused('ALREADY_PAST_LIMIT', `authenticated_ago reaches the absolute timeout of ${limits.absoluteTimeout} ms`);
    }
    const losers = known ? [] : this.#losers(limits, tenant, subject);
    if (known?.tombstone) throw ended(known);
    if (known) throw refused('SESSION_EXISTS', 'a live session has this id already; create sessions with fresh ids', this.examined(known));
    const { now } = this;
    const session = new Session({ ref, tenant, subject, labels, limits, created: now, authenticated: now - authenticatedAgo, lastActivity: now - idleFor, authenticationLevel });
    session.remember(wanted, now, 'created');
    session.begin(now);
    this.#sessions.set(ref, session);
    this.#publish(session);
    return { sessionId, session: answers.whole(session, now), supersededRefs: this.#supersede(losers) };
  }

  #createdBefore(sessionId: string, session: Session, wanted: Request) {
    const known = this.examined(session).recall(wanted, this.now);
    if (known === 'created') return { sessionId, session: answers.whole(session, this.now) };
    if (known) throw refused('REQUEST_ID_REUSED', reused().message, session);
    throw refused('SESSION_EXISTS', 'a live session has this id already; create sessions with fresh ids', session);
  }

  /** Who must go so that the subject may begin one more. */
  #losers(limits: Limits, tenant: string, subject: string): Session[] {
    const most = limits.maxSessionsPerSubject;
    if (most === undefined || !limits.enforced || !subject) return [];
    const own = this.#live().filter((session) => session.tenant === tenant && session.subject === subject).map((session) => this.examined(session));
    const peers = own.filter((session) => !session.tombstone && session.limits.policy === limits.policy);
    const tooMany = peers.length + 1 - most;
    if (tooMany > 0 && !limits.endsOldest) throw refused('SUBJECT_CAP', `the subject has as many live sessions as max_sessions_per_subject allows, ${most}`);
    return peers.sort((one, other) => one.created - other.created).slice(0, Math.max(tooMany, 0));
  }

  #supersede(losers: Session[]): string[] {
    for (const loser of losers) this.#endOne(loser, { reason: 'SUPERSEDED', actor: 'POLICY' });
    return losers.map((loser) => loser.ref);
  }

  #endOne(session: Session, how: Pick<Tombstone, 'reason' | 'actor' | 'actorId' | 'note' | 'request'>): Tombstone {
    const end = { ...how, at: this.now, forgetAt: this.now + session.limits.tombstoneTtl };
    this.#act(session, (each) => each.end(end, this.now));
    return end;
  }

  #touch(request: Words) {
    const tenant = this.ownTenant('tenant', request.tenant);
    const sessionId = read.sessionId('session_id', request.sessionId);
    const activity = read.known('activity', request.activity);
    const idleFor = read.span('idle_for', request.idleFor) ?? 0;
    const hints = request.hints && read.hints(request.hints);
    const { session, alias } = this.#lead(tenant, sessionId);
    const { limits } = session;
    if (limits.passive && limits.enforced && hints && !READING_METHODS.includes(hints.method)) {
      throw refused('READ_ONLY_SESSION', 'the session is for reading only (policy: passive)', session);
    }
    const verdict = judge(limits, activity, hints, session.reportsInput);
    const report = verdict.counts && !!hints?.inputReport;
    const result = this.#act(session, (each) => each.touch(verdict, report, idleFor, this.now));
    return { status: answers.status(session, this.now, alias), counted: result === 'COUNTED', result, rule: verdict.rule };
  }

  #check(request: Words) {
    const tenant = this.ownTenant('tenant', request.tenant);
    const { sessions } = request;
    if ('sessionId' in request || 'sessionRef' in request) {
      if (sessions.length) throw read.invalid('sessions', 'must be empty if session_id or session_ref is set; ask for one or for many');
      return { session: this.#checked(tenant, '', request) };
    }
    read.within('sessions', sessions.length, MOST_CHECKS);
    return { outcomes: sessions.map((each: Words, place: number) => this.#outcome(() => ({ status: this.#checked(tenant, `sessions[${place}].`, each).status }))) };
  }

  /** All that is known of the session that a name stands for: of its successor, while an id is an alias. */
  #checked(tenant: string, field: string, name: Words) {
    const ref = this.named(tenant, field, name);
    const session = this.#findOwn(tenant, ref);
    if (!session) return { status: answers.unknown(ref, this.now), tenant };
    const successor = 'sessionId' in name ? this.#successor(session, this.#isAlias) : undefined;
    return answers.whole(successor ?? session, this.now, successor !== undefined);
  }

  #extend(request: Words) {
    const tenant = this.ownTenant('tenant', request.tenant);
    const sessionId = read.sessionId('session_id', request.sessionId);
    const wanted = read.spanOver0('wanted_duration', request.wantedDuration);
    const knownAs = read.requestId('Extend', request, ['sessionId']);
    const { session, alias } = this.#lead(tenant, sessionId);
    const { granted, clamped } = this.#act(session, (each) => each.extend(wanted, knownAs, this.now));
    return { status: answers.status(session, this.now, alias), grantedDuration: granted, clampedBy: clamped ? 'ABSOLUTE' : undefined };
  }

  #hold(request: Words) {
    const tenant = this.ownTenant('tenant', request.tenant);
    const sessionId = read.sessionId('session_id', request.sessionId);
    const holdId = read.holdId(request.holdId);
    const kind = read.known<'WORK' | 'PRESENCE'>('kind', request.kind);
    if (!kind) throw read.invalid('kind', 'is required: HOLD_KIND_WORK or HOLD_KIND_PRESENCE');
    const ttl = read.spanOver0('ttl', request.ttl);
    if (ttl === undefined) throw read.invalid('ttl', 'is required: how long the hold should live, over 0 s');
    const purpose = read.text('purpose', request.purpose, 128);
    const { session, alias } = this.#holder(tenant, sessionId, holdId);
    const { granted, clamped, created } = this.#act(session, (each) => each.hold(holdId, kind, ttl, purpose, this.now));
    return { status: answers.status(session, this.now, alias), grantedTtl: granted, clampedBy: clamped, created };
  }

  #release(request: Words) {
    const tenant = this.ownTenant('tenant', request.tenant);
    const sessionId = read.sessionId('session_id', request.sessionId);
    const holdId = read.holdId(request.holdId);
    const { session, alias } = this.#holder(tenant, sessionId, holdId);
    const released = this.#act(session, (each) => each.release(holdId, this.now));
    return { status: answers.status(session, this.now, alias), released };
  }

  #rotate(request: Words) {
    const tenant = this.ownTenant('tenant', request.tenant);
    const subject: string | undefined = request.subject === undefined ? undefined : read.text('subject', request.subject, 256);
    if (subject === '') throw read.invalid('subject', 'is empty; leave it out to keep the subject, or give 1 to 256 bytes');
    const authenticationLevel = read.visible('authentication_level', request.authenticationLevel, 0, 64);
    if (authenticationLevel && request.authenticatedAgo === undefined) {
      throw read.invalid('authentication_level', 'needs authenticated_ago beside it: it is the level of a new authentication');
    }
    const oldId = read.sessionId('session_id', request.sessionId);
    const own: string = request.newSessionId;
    if (own === oldId) throw read.invalid('new_session_id', 'is the id that the session has already; a new one is needed');
    if (own) read.sessionId('new_session_id', own);
    const authenticatedAgo = read.span('authenticated_ago', request.authenticatedAgo);
    const wanted = read.requestId('Rotate', request);
    if (own) this.#refuseRef('new_session_id', tenant, own);
    const oldRef = this.#ref(tenant, oldId);
    const newId = own || (wanted ? this.#madeOf(32, 'rotation', tenant, oldRef, wanted.key) : randomBytes(32).toString('base64url'));
    const ref = this.#ref(tenant, newId);
    const before = wanted && this.#rotatedBefore(oldRef, newId, wanted);
    if (before) return before;
    const { session, alias } = this.#lead(tenant, oldId);
    const policy = this.#policies.get(session.limits.policy);
    this.#longEnough('new_session_id', newId, policy?.minIdLength ?? 1);
    const taken = this.find(ref);
    const losers = policy && subject !== undefined && subject !== session.subject && !taken ? this.#losers(policy, tenant, subject) : [];
    // If the new name is taken nothing happens; but what else speaks against it is told first.
    const options = { subject, authenticatedAgo, authenticationLevel };
    const successor = this.#act(taken ? session.copy() : session, (each) => each.rotate(ref, options, policy, wanted, this.now), !taken);
    if (!successor) {
      const again = wanted && this.#rotatedBefore(oldRef, newId, wanted);
      if (again) return again;
      throw refused('REQUEST_ID_REUSED', reused().message, this.find(oldRef));
    }
    if (taken?.tombstone) throw refused('NEW_SESSION_ENDED', 'a session of the new id has ended before; rotate to a fresh id');
    if (taken) throw refused('SESSION_EXISTS', 'a live session has the new id already; rotate to a fresh id', taken);
    this.#sessions.set(ref, successor);
    this.#publish(successor);
    const supersededRefs = this.#supersede(losers);
    return { sessionId: newId, session: answers.whole(successor, this.now, alias), previousEnd: answers.end(session.tombstone!), supersededRefs };
  }

  /** What a retry is answered: the session that the same request made of this name before, or of the one that it stood for. */
  #rotatedBefore(ref: string, newId: string, wanted: Request) {
    const old = this.find(ref);
    for (let session = old; session?.tombstone?.successor; ) {
      const end: Tombstone = session.tombstone;
      const sameKey = end.request?.key === wanted.key;
      const successor = this.find(end.successor!);
      if (sameKey && end.request?.content === wanted.content && end.successor === this.#ref(session.tenant, newId)) {
        if (!successor) throw unknown(end.successor!);
        if (successor.tombstone) throw ended(successor);
        return { sessionId: newId, session: answers.whole(successor, this.now), previousEnd: answers.end(end) };
      }
      if (sameKey && session === old) throw refused('REQUEST_ID_REUSED', reused().message, session);
      session = successor;
    }
    return undefined;
  }

  #end(request: Words) {
    const tenant = this.ownTenant('tenant', request.tenant);
    const sessionId = read.sessionId('session_id', request.sessionId);
    const how = endWords(request, 'LOGOUT');
    const wanted = read.requestId('End', request, ['sessionId']);
    let lead;
    try {
      lead = this.#lead(tenant, sessionId);
    } catch (error) {
      const told = failureOf(error);
      const over = told?.reason === 'SESSION_ENDED' ? this.find(told.metadata['session_ref'] ?? '') : undefined;
      if (!over?.tombstone) throw error;
      // A retry is told what the first call was told.
      const first = over.tombstone;
      const known = wanted && first.request?.key === wanted.key;
      if (known && first.request?.content !== wanted.content) throw refused('REQUEST_ID_REUSED', reused().message, over);
      const alias = over.ref !== this.#ref(tenant, sessionId);
      return { status: answers.status(over, this.now, alias), end: answers.end(first), endedNow: !!known };
    }
    const end = this.#endOne(lead.session, { ...how, request: wanted });
    return { status: answers.status(lead.session, this.now, lead.alias), end: answers.end(end), endedNow: true };
  }

  // ---- Verbs for administrators ----

  #listSessions({ filter, pageSize = 100, pageToken, actorId }: Words) {
    read.text('actor_id', actorId, 128);
    const found = this.#filtered(filter);
    if (pageSize < 1 || pageSize > 1000) throw read.invalid('page_size', `is ${pageSize}; 1 to 1000 are allowed`);
    const after = pageToken.replace(/^after-/, '');
    if (pageToken && !(read.isRef(after) && pageToken.startsWith('after-'))) throw read.invalid('page_token', 'is not a token of this list; begin without one');
    const listed = inOrder(found).filter((session) => session.ref > after);
    const page = listed.slice(0, pageSize);
    return { sessions: page.map((session) => answers.whole(session, this.now)), nextPageToken: listed.length > pageSize ? `after-${page.at(-1)!.ref}` : '' };
  }

  #endSessions({ filter, wholeTenant, except, dryRun, ...request }: Words) {
    const found = this.#filtered(filter);
    if (filter?.states.includes('ENDED')) throw read.invalid('filter.states', 'may only name live ones, ACTIVE and EXPIRING: what has ended stays ended');
    const isLimited = !!(filter?.subject || filter?.policy || Object.keys(filter?.labels ?? {}).length);
    if (wholeTenant === isLimited) throw read.invalid('whole_tenant', 'must be true to end all sessions of a tenant, and only then');
    if (except.length > MOST_SPARED) throw read.invalid('except', `has ${except.length} items; at most ${MOST_SPARED} are allowed`);
    const spared = new Set<string>(except.map((name: Words, place: number) => this.named(filter?.tenant ?? '', `except[${place}].`, name)));
    follow(this.log, spared);
    const how = endWords(request, 'REVOKED');
    const meant = inOrder(found.filter((session) => !spared.has(session.ref)));
    for (const session of dryRun ? [] : meant) this.#endOne(session, how);
    return { matchedCount: meant.length, endedCount: dryRun ? 0 : meant.length, sessionRefs: meant.slice(0, MOST_REFS).map((session) => session.ref) };
  }

  #filtered({ tenant = '', subject = '', states = [], labels = {}, policy = '' }: Words = {}): Session[] {
    this.ownTenant('filter.tenant', tenant);
    read.text('filter.subject', subject, 256);
    for (const [place, state] of states.entries()) {
      const told = read.known<SessionState>(`filter.states[${place}]`, state);
      if (!told || told === 'UNKNOWN') throw read.invalid(`filter.states[${place}]`, 'must be ACTIVE, EXPIRING or ENDED; leave `states` empty for live sessions');
    }
    const wanted = Object.entries(read.labels('filter.labels', labels));
    read.text('filter.policy', policy, 128);
    return this.refs().map((ref) => this.find(ref)).filter((session) => session !== undefined)
      .filter((session) => session.tenant === tenant && ['', session.subject].includes(subject) && ['', session.limits.policy].includes(policy))
      .filter((session) => wanted.every(([key, value]) => session.labels[key] === value))
      .filter((session) => (states.length ? states : ['ACTIVE', 'EXPIRING']).includes(answers.status(this.examined(session), this.now).state));
  }
}

const inOrder = (sessions: Session[]) => [...sessions].sort((one, other) => (one.ref < other.ref ? -1 : 1));
const failureOf = (error: unknown): Failure | undefined => (error instanceof Failed ? error.failure : undefined);

// ---- Refusals ----

const unknown = (ref: string) => new Failed(failure('NOT_FOUND', 'the session is not known', 'SESSION_UNKNOWN', { metadata: { session_ref: ref } }));

function ended({ ref, tombstone }: Session): Failed {
  const { reason, actor, at, actorId, note, successor } = tombstone!;
  const told = { session_ref: ref, reason, actor, end_time: new Date(at).toISOString(), actor_id: actorId, note, successor_ref: successor };
  const metadata = Object.fromEntries(Object.entries(told).filter((entry): entry is [string, string] => !!entry[1]));
  return new Failed(failure('FAILED_PRECONDITION', 'the session has ended', 'SESSION_ENDED', { metadata }));
}

function refused(reason: string, problem: string, session?: Session): Failed {
  const code = EXHAUSTED.includes(reason) ? 'RESOURCE_EXHAUSTED' : reason === 'SESSION_EXISTS' ? 'ALREADY_EXISTS' : 'FAILED_PRECONDITION';
  return new Failed(failure(code, problem, reason, { metadata: session ? { session_ref: session.ref } : {} }));
}

/** How a session is to end: the reason is `usual` if it is not said. */
function endWords(request: Words, usual: EndReason): { reason: EndReason; actor: Actor; actorId: string; note: string } {
  const actorId = read.text('actor_id', request.actorId, 128);
  const note = read.text('note', request.note, 256);
  const reason = read.known<EndReason>('reason', request.reason) ?? usual;
  if (reason !== 'LOGOUT' && reason !== 'REVOKED') throw read.invalid('reason', 'must be END_REASON_LOGOUT or END_REASON_REVOKED: nobody can command the others');
  const actor = read.known<Actor>('actor', request.actor) ?? (reason === 'LOGOUT' && usual === 'LOGOUT' ? 'USER' : 'ADMIN');
  return { reason, actor, actorId, note };
}
