// The words of the API. Names are those of the .proto in camelCase, where their units and limits stand. Durations are milliseconds,
// times are Dates, enums are their words without the prefix.

import type { InvalidRequestError, NotPermittedError, RefusedError } from './errors.js';

/** A duration, in milliseconds. */
export type Milliseconds = number;

/** What a session is. OTHER, here and in each enum of an answer, is a word of a newer sidecar; such a session is live for no one. */
export type SessionState = 'ACTIVE' | 'EXPIRING' | 'ENDED' | 'UNKNOWN' | 'OTHER';
/** The limit that sets when a session ends. */
export type Limit = 'IDLE' | 'ABSOLUTE' | 'PRESENCE' | 'OTHER';
/** Where an answer comes from. LOCAL: the shared store cannot be reached; this is what the sidecar knew before. */
export type KnowledgeScope = 'MEMORY' | 'STORE' | 'LOCAL' | 'OTHER';
/** What became of a touch. */
export type TouchResult = 'COUNTED' | 'IGNORED' | 'STALE' | 'PENDING' | 'OTHER';
/** What cut a hold's TTL short. */
export type HoldClamp = 'MAX_TTL' | 'BUDGET' | 'ABSOLUTE' | 'OTHER';
/** Why a session ended. ROTATED: it goes on under another id, `successorRef`. */
export type EndReason =
  | 'IDLE_TIMEOUT' | 'ABSOLUTE_TIMEOUT' | 'LOGOUT' | 'REVOKED' | 'BROWSER_CLOSED' | 'SUPERSEDED' | 'ROTATED' | 'OTHER';
/** Who ended a session. */
export type Actor = 'USER' | 'ADMIN' | 'POLICY' | 'SYSTEM' | 'OTHER';
/** What withdrew a warning. */
export type ClearedCause =
  | 'TOUCHED' | 'EXTENDED' | 'HELD' | 'ROTATED' | 'RELEASED' | 'POLICY_CHANGED' | 'NOT_ENFORCED' | 'OTHER';
/** What a hold is for. */
export type HoldKind = 'WORK' | 'PRESENCE' | 'OTHER';
/** The kind of activity that a touch declares. Without one the policy's rules decide. */
export type Activity = 'USER' | 'BACKGROUND';
/** Whether the page that caused a request can be seen. */
export type PageVisibility = 'VISIBLE' | 'HIDDEN';
/** A kind of event that a watch can ask for. */
export type EventKind = 'WARNING' | 'CLEARED' | 'ENDED';
/** What `touch` and `check` allow while the sidecar cannot be reached or cannot know. */
export type Fail = 'closed' | 'open';

/** A session by its id, or by its ref: safe to log and show, never a credential. */
export type SessionName = string | { readonly sessionRef: string };

/** How a session ended. There is only ever one end. `reason` and `actor` are absent where the sidecar did not tell. */
export interface End {
  readonly reason?: EndReason;
  readonly actor?: Actor;
  readonly endTime?: Date;
  readonly actorId: string;
  readonly note: string;
  readonly successorRef: string;
}

/** The compact answer of the hot verbs. Decide with `expiresIn`; the times are for people and logs. */
export interface Status {
  readonly sessionRef: string;
  readonly state: SessionState;
  readonly serverTime?: Date;
  readonly expireTime?: Date;
  readonly expiresIn?: Milliseconds;
  readonly limit?: Limit;
  readonly nextWarningTime?: Date;
  readonly canExtend: boolean;
  readonly version: number;
  readonly scope?: KnowledgeScope;
  readonly mayHaveEnded: boolean;
  readonly alias: boolean;
  readonly readOnly: boolean;
  readonly observedOnly: boolean;
}

/** A live hold. */
export interface SessionHold {
  readonly holdId: string;
  readonly kind?: HoldKind;
  readonly purpose: string;
  readonly startTime?: Date;
  readonly expireTime?: Date;
  readonly expiresIn?: Milliseconds;
}

/** Everything that the sidecar knows of a session, but its id. */
export interface Session {
  readonly status: Status;
  readonly tenant: string;
  readonly subject: string;
  readonly policy: string;
  readonly policyRevision: number;
  readonly idleTimeout?: Milliseconds;
  readonly absoluteTimeout?: Milliseconds;
  readonly createTime?: Date;
  readonly authenticationTime?: Date;
  readonly authenticationLevel: string;
  readonly lastActivityTime?: Date;
  readonly lastActivityAccuracy?: Milliseconds;
  readonly idleExpireTime?: Date;
  readonly absoluteExpireTime?: Date;
  readonly presenceExpireTime?: Date;
  readonly extensions: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly holds: readonly SessionHold[];
  readonly end?: End;
  readonly unenforcedEnd?: End;
  readonly predecessorRef: string;
}

/** The session lives. `session` is set by `check` of one session. */
export interface Live {
  readonly kind: 'live';
  /** Whether the request may go on: always. */
  readonly allowed: true;
  readonly sessionRef: string;
  /** How long it lives if nothing else happens. */
  readonly expiresIn: Milliseconds;
  /** Whether a warning of it stands. */
  readonly expiring: boolean;
  readonly status: Status;
  readonly session?: Session;
}

/** The session lives, and what became of the touch. */
export interface Touched extends Live {
  readonly counted: boolean;
  readonly result?: TouchResult;
  /** The name of the rule that decided. */
  readonly rule: string;
}

/** The session has ended; nothing revives it. `session` is set by `check` of one session. */
export interface Ended {
  readonly kind: 'ended';
  /** Whether the request may go on: never, whatever the fail policy. */
  readonly allowed: false;
  readonly sessionRef: string;
  readonly reason?: EndReason;
  readonly actor?: Actor;
  /** When: for a timeout the deadline itself. */
  readonly endTime?: Date;
  /** The session that goes on, if it was rotated; else empty. */
  readonly successorRef: string;
  readonly end: End;
  readonly session?: Session;
  readonly status?: Status;
}

/** Ended longer ago than is remembered, or never existed, or lost with a sidecar that only had memory. */
export interface Unknown {
  readonly kind: 'unknown';
  /** Whether the request may go on: never, whatever the fail policy. */
  readonly allowed: false;
  readonly sessionRef: string;
  readonly mayHaveEnded: boolean;
  readonly status?: Status;
}

/** Nobody knows now: the sidecar cannot be reached in time, or itself cannot know. */
export interface Unreachable {
  readonly kind: 'unreachable';
  /** The fail policy's word. */
  readonly allowed: boolean;
  /** The gRPC code, such as UNAVAILABLE or DEADLINE_EXCEEDED. */
  readonly code: string;
  readonly message: string;
  readonly retryAfter?: Milliseconds;
}

/** What `check` answers. Each has `allowed`. */
export type Answer = Live | Ended | Unknown | Unreachable;
/** What `touch` answers. Each has `allowed`. */
export type TouchAnswer = Touched | Ended | Unknown | Unreachable;
/** What stands in the place of one item of many, if asking for it alone would have thrown it. */
export type ItemError = InvalidRequestError | NotPermittedError | RefusedError;

/** A session that began. */
export interface Created {
  /** A secret that cannot be asked for again. Not enumerable: neither console.log nor JSON shows it, and a spread loses it. */
  readonly sessionId: string;
  readonly session: Session;
  readonly supersededRefs: readonly string[];
}

/** A session under its new id. */
export interface Rotated extends Created {
  readonly previousEnd: End;
}

/** What an Extend granted. 0 is possible and no error. */
export interface Extended {
  readonly status: Status;
  readonly grantedDuration: Milliseconds;
  readonly clampedBy?: Limit;
}

/** What a Hold granted. Renew well before `grantedTtl` is over; `holding` does. */
export interface Held {
  readonly status: Status;
  readonly grantedTtl: Milliseconds;
  readonly clampedBy?: HoldClamp;
  readonly created: boolean;
}

/** Whether there was a live hold to release. */
export interface Released {
  readonly status: Status;
  readonly released: boolean;
}

/** The end: this call's, or the first one if there was one before. */
export interface EndAnswer {
  readonly status: Status;
  readonly end: End;
  readonly endedNow: boolean;
}

/** What is known of the request behind a touch: the policy's rules decide by it. All of it is optional, nothing is kept. */
export interface Hints {
  host?: string;
  method?: string;
  path?: string;
  secFetchUser?: string;
  secFetchMode?: string;
  secFetchDest?: string;
  secPurpose?: string;
  pageVisibility?: PageVisibility;
  inputReport?: boolean;
}

// ---- What the verbs take ----

export interface CreateOptions {
  subject?: string;
  /** An id of your own, 16 to 256 bytes of visible ASCII. Without one the sidecar makes one, of 256 bits. */
  sessionId?: string;
  policy?: string;
  /** At most 8, not secret. */
  labels?: Readonly<Record<string, string>>;
  /** Only stricter than the policy's. */
  idleTimeout?: Milliseconds;
  absoluteTimeout?: Milliseconds;
  authenticatedAgo?: Milliseconds;
  idleFor?: Milliseconds;
  authenticationLevel?: string;
  /** Repeating a call with it is safe. Made by the client if there is none. */
  requestId?: string;
}

export interface TouchOptions {
  activity?: Activity;
  idleFor?: Milliseconds;
  hints?: Hints;
}

/** One touch of a `touchMany`. */
export interface Touch extends TouchOptions {
  sessionId: string;
}

export interface ExtendOptions {
  wantedDuration?: Milliseconds;
  requestId?: string;
}

export interface HoldOptions {
  ttl: Milliseconds;
  /** Default: WORK. */
  kind?: Exclude<HoldKind, 'OTHER'>;
  purpose?: string;
}

export interface RotateOptions {
  newSessionId?: string;
  subject?: string;
  /** 0 at a login: both deadlines begin anew. */
  authenticatedAgo?: Milliseconds;
  authenticationLevel?: string;
  requestId?: string;
}

export interface EndOptions {
  /** Default: LOGOUT. */
  reason?: 'LOGOUT' | 'REVOKED';
  actor?: Exclude<Actor, 'OTHER'>;
  actorId?: string;
  note?: string;
  requestId?: string;
}

// ---- What a watch tells ----

/** The session that an event is about. */
export interface EventSession {
  readonly sessionRef: string;
  /** Set only if the watch named the session by it. Not enumerable: see Created. */
  readonly sessionId: string;
  readonly tenant: string;
  readonly subject: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly version: number;
}

/** What a watch tells. `docs/stream.md` of session-sidecar says what to do with each. */
export type Event = SnapshotEvent | SnapshotEndEvent | WarningEvent | ClearedEvent | EndedEvent | DrainingEvent | BeginAnewEvent;

/** A session as it is: part of the initial state, or, with `predecessorRef`, as it goes on after a Rotate. */
export interface SnapshotEvent {
  readonly kind: 'snapshot';
  readonly emitTime: Date;
  readonly session: EventSession;
  readonly status: Status;
  readonly end?: End;
  readonly predecessorRef: string;
}

/** The initial state is complete; what follows is live. */
export interface SnapshotEndEvent {
  readonly kind: 'snapshotEnd';
  readonly emitTime: Date;
  readonly snapshotCount: number;
}

/** A session will end soon. A `cleared` of the same limit, or an `ended`, follows. */
export interface WarningEvent {
  readonly kind: 'warning';
  readonly emitTime: Date;
  readonly session: EventSession;
  readonly limit: Limit;
  readonly point: Milliseconds;
  readonly expireTime: Date;
  readonly expiresIn: Milliseconds;
  readonly canExtend: boolean;
}

/** The warnings of one limit are withdrawn. */
export interface ClearedEvent {
  readonly kind: 'cleared';
  readonly emitTime: Date;
  readonly session: EventSession;
  readonly limit: Limit;
  readonly cause: ClearedCause;
  readonly expireTime?: Date;
  readonly expiresIn: Milliseconds;
}

/** A session ended. There is exactly one for each session. */
export interface EndedEvent {
  readonly kind: 'ended';
  readonly emitTime: Date;
  readonly session: EventSession;
  readonly end: End;
  readonly createTime?: Date;
  readonly lastActivityTime?: Date;
}

/** This sidecar is about to stop. The watch reconnects and resumes by itself. */
export interface DrainingEvent {
  readonly kind: 'draining';
  readonly emitTime: Date;
}

/** The log does not reach back to where the watch was. Forget what you know of its sessions: snapshots of those that live follow,
 * up to a snapshotEnd. What is absent has ended or is out of scope. */
export interface BeginAnewEvent {
  readonly kind: 'beginAnew';
  readonly reason: string;
}
