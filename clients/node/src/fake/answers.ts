// What is answered and told of a session, in the client's words; the wire's translation makes messages of them.

import type { EventSession, Session as Told, Status } from '../words.js';
import { type Moment, nearest, type News, REASONS, type Session, type Tombstone } from './model.js';
import { NEVER } from './policy.js';

const date = (at: Moment) => new Date(at);
const maybe = (at: Moment | undefined) => (at === undefined ? undefined : date(at));

/** What is told, for the message of it: the refs that there are not are empty. */
type Words<T> = { [key in keyof T]?: T[key] | undefined };

export const end = ({ reason, actor, actorId, at, note, successor }: Tombstone) => ({ reason, actor, actorId, endTime: date(at), note, successorRef: successor });

/** The compact answer. */
export function status(session: Session, now: Moment, alias = false): Words<Status> & { state: Status['state'] } {
  const { ref: sessionRef, version, tombstone, limits } = session;
  const common = { sessionRef, version, alias, serverTime: date(now), scope: 'MEMORY' as const };
  if (tombstone) return { ...common, state: 'ENDED', expireTime: date(tombstone.at) };
  const { at, limit } = nearest(session.deadlines(now));
  return {
    ...common,
    state: Object.keys(session.fired).length ? 'EXPIRING' : 'ACTIVE',
    expireTime: date(at),
    expiresIn: Math.max(at - now, 0),
    limit,
    nextWarningTime: maybe(session.nextWarning(now)),
    canExtend: session.canExtend(now),
    readOnly: limits.passive,
    observedOnly: !limits.enforced,
  };
}

/** The compact answer of a session that is not known. */
export const unknown = (sessionRef: string, now: Moment) => ({ sessionRef, state: 'UNKNOWN', serverTime: date(now), scope: 'MEMORY' });

/** All of a session. */
export function whole(session: Session, now: Moment, alias = false) {
  const { limits, tombstone } = session;
  const deadlines = session.deadlines(now);
  const ends = limits.idleTimeout < NEVER;
  const would = tombstone ? undefined : session.unenforced;
  return {
    status: status(session, now, alias) as Status,
    tenant: session.tenant,
    subject: session.subject,
    policy: limits.policy,
    policyRevision: limits.revision,
    idleTimeout: ends ? limits.idleTimeout : undefined,
    absoluteTimeout: limits.absoluteTimeout,
    createTime: date(session.created),
    authenticationTime: date(session.authenticated),
    authenticationLevel: session.authenticationLevel,
    lastActivityTime: date(session.lastActivity),
    idleExpireTime: ends ? maybe(tombstone ? tombstone.idleDeadline : deadlines.idle) : undefined,
    absoluteExpireTime: date(deadlines.absolute),
    presenceExpireTime: tombstone ? undefined : maybe(deadlines.presence),
    extensions: session.extensions,
    labels: session.labels,
    holds: (tombstone ? [] : session.liveHolds(now)).map(({ id, kind, purpose, started, until }) => ({
      holdId: id, kind, purpose, startTime: date(started), expireTime: date(until), expiresIn: until - now,
    })),
    end: tombstone && end(tombstone),
    unenforcedEnd: would && { reason: REASONS[would.limit], actor: 'POLICY', endTime: date(would.at) },
    predecessorRef: session.predecessor,
  } satisfies Partial<Record<keyof Told, unknown>>;
}

const about = ({ ref, tenant, subject, labels }: Session, version: number): Words<EventSession> => ({ sessionRef: ref, tenant, subject, labels, version });

/** A session as it is now. */
export const snapshot = (session: Session, now: Moment) => ({
  session: about(session, session.version),
  status: status(session, now),
  end: session.tombstone && end(session.tombstone),
  predecessorRef: session.predecessor,
});

/** What watchers are told of something that happened: the field of the stream's message, and what is in it. */
export function told(session: Session, version: number, what: News, now: Moment): object {
  const base = { session: about(session, version) };
  switch (what.kind) {
    case 'warning':
      return { warning: { ...base, limit: what.limit, point: what.point, expireTime: date(what.expire), expiresIn: what.expire - now, canExtend: what.canExtend } };
    case 'cleared':
      return { cleared: { ...base, limit: what.limit, cause: what.cause, expireTime: date(what.expire), expiresIn: Math.max(what.expire - now, 0) } };
    case 'succeeded':
      return { snapshot: { ...base, status: status(what.record, now), predecessorRef: what.record.predecessor } };
    case 'ended':
      return { ended: { ...base, end: end(what.tombstone), createTime: date(session.created), lastActivityTime: date(session.lastActivity) } };
  }
}
