// The clients: they hold a connection and carry out the calls of `calls`.

import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import { Access, type ConnectionOptions } from './access.js';
import * as calls from './calls.js';
import type { Call, Settings } from './calls.js';
import { type Failure, InvalidRequestError, lostConnection, SidecarUnreachableError } from './errors.js';
import { Holding } from './holding.js';
import { type WatchExpiryRequest, WatchExpiryRequestSchema, WatchScopeSchema } from './proto/sessionsidecar/v1/session_service_pb.js';
import { Failed, type Transport, Wire } from './transport.js';
import { Watch } from './watch.js';
import { message } from './wire.js';
import type {
  Answer, Created, CreateOptions, EndAnswer, EndOptions, EventKind, Extended, ExtendOptions, Fail, Held, HoldOptions, ItemError, Milliseconds, Released,
  Rotated, RotateOptions, SessionName, Touch, TouchAnswer, TouchOptions,
} from './words.js';

const DEADLINE = 250;
const HEARTBEAT = 15_000;
const HOLD_TTL = 60_000;

/** Where a client says that the sidecar no longer answers, and that it does again. */
export interface Logger {
  warn(message: string): void;
}

export interface ClientOptions extends ConnectionOptions {
  /** Default: the one that has no name. */
  tenant?: string;
  /** How long a call may take, connecting included. Default: 250. */
  deadline?: Milliseconds;
  /** Default: the console. */
  logger?: Logger;
}

export interface SidecarOptions extends ClientOptions {
  /** What `touch` and `check` allow while nobody knows. Default: closed. */
  fail?: Fail;
}

export interface WatchOptions {
  /** Exactly one of these four. */
  sessions?: Iterable<SessionName>;
  subject?: string;
  wholeTenant?: boolean;
  /** All tenants of this caller. */
  everything?: boolean;
  /** Default: all. */
  kinds?: Iterable<EventKind>;
  /** Whether snapshots come first. Default: yes. */
  initialState?: boolean;
  /** 1 s to 5 min; default 15 s. */
  heartbeatInterval?: Milliseconds;
  /** Where a watch before this one was: see Watch.resumeToken. */
  resumeToken?: string;
}

export interface HoldingOptions {
  purpose?: string;
  /** Default: a minute. It is renewed at a third of what is granted. */
  ttl?: Milliseconds;
  kind?: HoldOptions['kind'];
  holdId?: string;
}

/** Says once that the sidecar is away, and once that it is back. */
class Outage {
  away = false;

  constructor(readonly target: string, readonly logger: Logger) {}

  /** A call was answered, or failed. Refusals are answers. */
  heard(failure?: Failure) {
    const away = failure?.code === 'UNAVAILABLE' || failure?.code === 'DEADLINE_EXCEEDED';
    if (away === this.away) return;
    this.away = away;
    const what = away ? `does not answer: ${failure.code}: ${failure.message}` : 'answers again';
    this.logger.warn(`session-sidecar at ${this.target} ${what}`);
  }
}

/** What all clients have. */
export abstract class BaseClient {
  /** Where it connects to, in gRPC's words. */
  readonly target: string;
  /** @internal */
  readonly settings: Settings;
  /** @internal */
  readonly transport: Transport;
  /** @internal */
  readonly outage: Outage;

  /** @internal */
  constructor({ tenant = '', deadline = DEADLINE, fail = 'closed', logger = console, ...connection }: SidecarOptions, transport?: Transport) {
    if (fail !== 'closed' && fail !== 'open') throw new TypeError("fail must be 'closed' or 'open'");
    if (!(deadline > 0)) throw new TypeError('deadline must be a number of milliseconds over 0');
    this.transport = transport ?? new Wire(new Access(connection));
    this.target = this.transport instanceof Wire ? this.transport.access.target : 'fake';
    this.settings = { tenant, deadline, allowed: fail === 'open' };
    this.outage = new Outage(this.target, logger);
  }

  /** Closes the connection. A later call opens another. A connection without calls keeps no program from ending. */
  close(): void {
    this.transport.close();
  }

  /** @internal Carries out one call. */
  async run<Result>(call: Call<Result>): Promise<Result> {
    const until = performance.now() + this.settings.deadline;
    const left = () => Math.max(until - performance.now(), 1);
    // A connection that broke may be taken for whole for a moment more. Of a sidecar that is away nobody expects an answer.
    const pauses = call.again && !this.outage.away ? [5, 20] : [];
    for (;;) {
      let answer;
      try {
        answer = await this.transport.call(call, left());
      } catch (error) {
        if (!(error instanceof Failed)) throw error;
        if (lostConnection(error.failure) && pauses.length > 0 && left() > pauses[0]!) {
          await sleep(pauses.shift());
          continue;
        }
        this.outage.heard(error.failure);
        return call.failed(error.failure);
      }
      this.outage.heard();
      return call.answered(answer);
    }
  }

  [inspect.custom](): string {
    return `${this.constructor.name}(${inspect(this.target)}, tenant ${inspect(this.settings.tenant)})`;
  }
}

/** A client of the sidecar. It connects at its first call: make one, at import, and share it. */
export class Sidecar extends BaseClient {
  /** @internal The second argument is the fake's. */
  constructor(options?: SidecarOptions, transport?: Transport);
  constructor(options?: SidecarOptions);
  constructor(options: SidecarOptions = {}, transport?: Transport) {
    super(options, transport);
  }

  /** Whether `touch` and `check` allow while nobody knows. */
  get failsOpen(): boolean {
    return this.settings.allowed;
  }

  /** The same client, over the same connection, with other settings. */
  withOptions({ tenant, fail, deadline }: Pick<SidecarOptions, 'tenant' | 'fail' | 'deadline'>): this {
    const settings: Settings = {
      tenant: tenant ?? this.settings.tenant,
      deadline: deadline ?? this.settings.deadline,
      allowed: fail === undefined ? this.settings.allowed : fail === 'open',
    };
    return Object.assign(Object.create(Object.getPrototypeOf(this)), this, { settings });
  }

  /** Starts a session at login, or adopts one that runs already (`authenticatedAgo`, `idleFor`). Rejects with RefusedError
   * (SESSION_EXISTS, ALREADY_PAST_LIMIT, SUBJECT_CAP, …); with SessionEndedError if this id ended before. */
  async create(options?: CreateOptions): Promise<Created> {
    return this.run(calls.createSession(this.settings, options));
  }

  /** Reports that the person did something, and answers whether the session lives: `answer.allowed`. Without `activity` the policy's
   * rules decide by the hints whether it counts. Rejects with InvalidRequestError if this can be no id, with RefusedError
   * (READ_ONLY_SESSION) and NotPermittedError. */
  async touch(sessionId: string, options?: TouchOptions): Promise<TouchAnswer> {
    return this.run(calls.touch(this.settings, sessionId, options));
  }

  /** Up to 1,000 touches, an outcome each, in their order. What `touch` would have thrown for one of them stands in its place. */
  async touchMany(touches: Iterable<Touch>): Promise<(TouchAnswer | ItemError)[]> {
    return this.run(calls.touchMany(this.settings, touches));
  }

  /** What a session is, by its id or `{ sessionRef }`; all of it in `answer.session`. Never extends, creates or delays. */
  async check(session: SessionName): Promise<Answer> {
    return this.run(calls.check(this.settings, session));
  }

  /** What up to 100 sessions are, in their order, without the reasons of those that ended. What `check` would have thrown for one of
   * them stands in its place. */
  async checkMany(sessions: Iterable<SessionName>): Promise<(Answer | ItemError)[]> {
    return this.run(calls.checkMany(this.settings, sessions));
  }

  /** The person pressed "stay". Rejects with SessionEndedError, SessionUnknownError, RefusedError (EXTENSION_LIMIT). */
  async extend(sessionId: string, options?: ExtendOptions): Promise<Extended> {
    return this.run(calls.extend(this.settings, sessionId, options));
  }

  /** One pulse of a hold: begins or renews it. `holding` does it for you. Rejects with SessionEndedError, SessionUnknownError,
   * RefusedError (HOLD_BUDGET, HOLD_CAP, PRESENCE_OFF, HOLD_KIND). */
  async hold(sessionId: string, holdId: string, options: HoldOptions): Promise<Held> {
    return this.run(calls.hold(this.settings, sessionId, holdId, options));
  }

  /** Ends a hold. One that is not there is no error. Rejects with SessionEndedError, SessionUnknownError. */
  async release(sessionId: string, holdId: string): Promise<Released> {
    return this.run(calls.release(this.settings, sessionId, holdId));
  }

  /** Gives a session a new id; at a login say `authenticatedAgo: 0` and the subject, and both deadlines begin anew. Rejects with
   * SessionEndedError, SessionUnknownError, RefusedError (SESSION_EXISTS, NEW_SESSION_ENDED, SUBJECT_CAP, …). */
  async rotate(sessionId: string, options?: RotateOptions): Promise<Rotated> {
    return this.run(calls.rotate(this.settings, sessionId, options));
  }

  /** Ends a session now: LOGOUT, unless `reason` is REVOKED. On one that ended before it answers the first end. Rejects with
   * SessionUnknownError. */
  async end(sessionId: string, options?: EndOptions): Promise<EndAnswer> {
    return this.run(calls.end(this.settings, sessionId, options));
  }

  /** Keeps the session alive while `work` goes on, and answers what it answers: a hold is renewed at a third of the granted TTL, and
   * released at the end. If the session ends meanwhile, `hold.ended` tells, `hold.signal` is aborted and `hold.throwIfEnded()`
   * throws; `holding` itself does not, for the work is done. It begins by rejecting with what `hold` rejects with; an unreachable
   * sidecar does not matter with `fail: 'open'`. */
  async holding<Result>(sessionId: string, options: HoldingOptions, work: (hold: Holding) => Result | Promise<Result>): Promise<Result> {
    const { holdId = randomBytes(8).toString('hex'), ttl = HOLD_TTL, ...rest } = options;
    const holding = new Holding(holdId, ttl, (problem) => this.outage.logger.warn(problem));
    const pulse = async () => holding.granted(await this.hold(sessionId, holdId, { ttl, ...rest }));
    const first = await pulse().catch((error) => {
      if (!(this.failsOpen && error instanceof SidecarUnreachableError)) throw error;
      return holding.failed(error);
    });
    const halt = this.transport.alarm(first!, () => pulse().catch((error) => holding.failed(error)));
    try {
      return await work(holding);
    } finally {
      await halt();
      if (!holding.ended) {
        await this.release(sessionId, holdId).catch((problem) => holding.unreleased(problem));
      }
    }
  }

  /** Events of sessions, of a subject, of the tenant, or of everything, for ever: it reconnects and resumes by itself, and tells
   * `beginAnew` where that cannot be without a gap. It begins when its first event is asked for. */
  watch({ sessions, subject, wholeTenant, everything, kinds = [], initialState = true, heartbeatInterval = HEARTBEAT, resumeToken = '' }: WatchOptions): Watch {
    const names = sessions && [...sessions];
    if ([names?.length, subject !== undefined, wholeTenant, everything].filter(Boolean).length !== 1) {
      throw new InvalidRequestError('scope: give exactly one of sessions, subject, wholeTenant, everything', ['scope']);
    }
    const scope = message(WatchScopeSchema, {
      tenant: everything ? undefined : this.settings.tenant,
      ...(names?.length ? { sessions: { names } } : subject !== undefined ? { subject } : wholeTenant ? { wholeTenant } : { everything }),
    });
    const request = message(WatchExpiryRequestSchema, { scope, kinds: [...kinds], resumeToken, heartbeatInterval, includeInitialState: initialState && !resumeToken });
    return this.opened(request);
  }

  /** @internal */
  opened(request: WatchExpiryRequest): Watch {
    return new Watch(this.transport, request, (problem) => this.outage.logger.warn(problem));
  }
}
