// What a watch is told: the state first if it was asked for, then what the log has.

import { createHash } from 'node:crypto';
import { failure } from '../errors.js';
import { type WatchExpiryRequest, WatchExpiryRequestSchema, type WatchExpiryResponse, WatchExpiryResponseSchema } from '../proto/sessionsidecar/v1/session_service_pb.js';
import { Failed } from '../transport.js';
import { message, plain } from '../wire.js';
import * as answers from './answers.js';
import type { News, Session } from './model.js';
import * as read from './requests.js';
import type { Server } from './server.js';

const MOST_WATCHED = 1000;

/** What happened to a session, as watchers are told. */
export interface Entry {
  readonly ref: string;
  readonly tenant: string;
  readonly subject: string;
  readonly kind: News['kind'] | 'draining';
  readonly emitTime: Date;
  readonly told: object;
  readonly successor: string;
}

/** Adds those that went on in the place of these. */
export function follow(log: readonly Entry[], refs: Set<string>) {
  for (const { ref, successor } of log) if (successor && refs.has(ref)) refs.add(successor);
}

interface Scope {
  readonly tenant?: string;
  readonly refs?: readonly string[];
  readonly subject?: string;
}

/** One watch. */
export class Feed {
  readonly #server: Server;
  /** The ids by which sessions were named. */
  readonly #named = new Map<string, string>();
  readonly #scope: Scope;
  readonly #kinds: ReadonlySet<string>;
  /** The sessions that were named, and those that went on in their place. */
  readonly #refs: Set<string>;
  readonly #ready: { emitTime: Date; told: object }[] = [];
  #place: number;

  constructor(server: Server, wire: WatchExpiryRequest) {
    const request = plain<any>(WatchExpiryRequestSchema, wire);
    this.#server = server;
    this.#scope = this.#read(request.scope ?? {});
    const kinds: string[] = request.kinds.map((word: string | undefined, place: number) => {
      const kind = read.known(`kinds[${place}]`, word);
      if (!kind) throw read.invalid(`kinds[${place}]`, 'is unspecified; leave `kinds` empty to get all');
      return kind.toLowerCase();
    });
    this.#kinds = new Set(kinds.length ? kinds : ['warning', 'cleared', 'ended']);
    read.span('heartbeat_interval', request.heartbeatInterval, 1000, 300_000);
    this.#refs = new Set(this.#named.keys());
    follow(server.log, this.#refs);
    this.#place = server.log.length;
    if (request.resumeToken) {
      if (request.includeInitialState) throw read.invalid('include_initial_state', 'must be false with a resume_token: resume, or begin anew');
      this.#place = this.#opened(request.resumeToken);
      return;
    }
    const emitTime = new Date(server.now);
    if (request.includeInitialState) for (const session of this.#inScope()) this.#ready.push({ emitTime, told: { snapshot: answers.snapshot(session, server.now) } });
    this.#ready.push({ emitTime, told: { snapshotEnd: { snapshotCount: this.#ready.length } } });
  }

  #read(scope: any): Scope {
    if ('everything' in scope) return {};
    if (!['sessions', 'subject', 'wholeTenant'].some((kind) => kind in scope)) throw read.invalid('scope', 'is required: sessions, a subject, whole_tenant or everything');
    const tenant = this.#server.ownTenant('scope.tenant', scope.tenant);
    if ('sessions' in scope) {
      const { names } = scope.sessions;
      read.within('scope.sessions.names', names.length, MOST_WATCHED);
      names.forEach((name: any, place: number) => {
        const ref = this.#server.named(tenant, `scope.sessions.names[${place}].`, name);
        this.#named.set(ref, this.#named.get(ref) || name.sessionId || '');
      });
      return { tenant, refs: [...this.#named.keys()].sort() };
    }
    if (!('subject' in scope)) return { tenant };
    if (!scope.subject) throw read.invalid('scope.subject', 'is empty; 1 to 256 bytes are needed');
    return { tenant, subject: read.text('scope.subject', scope.subject, 256) };
  }

  /** The sessions that the initial state is about: the live ones and, if they are named, the ended ones too. */
  #inScope(): Session[] {
    const { refs } = this.#scope;
    return (refs ? [...this.#refs].sort() : this.#server.refs()).map((ref) => this.#server.find(ref))
      .filter((session) => session !== undefined && this.#covers(session) && (!!refs || !session.tombstone))
      .map((session) => this.#server.examined(session!));
  }

  #covers({ ref, tenant, subject }: Pick<Entry, 'ref' | 'tenant' | 'subject'>): boolean {
    const { tenant: own, refs, subject: wanted = subject } = this.#scope;
    if (own === undefined ? !this.#server.tenants.includes(tenant) : own !== tenant) return false;
    return refs ? this.#refs.has(ref) : wanted === subject;
  }

  /** The next message, if there is one. */
  told(): WatchExpiryResponse | undefined {
    const { log } = this.#server;
    while (!this.#ready.length && this.#place < log.length) {
      const entry = log[this.#place++]!;
      if (this.#wants(entry)) this.#ready.push(entry);
    }
    const next = this.#ready.shift();
    if (!next) return undefined;
    const made = message(WatchExpiryResponseSchema, { emitTime: next.emitTime, resumeToken: this.#token(), ...next.told });
    const about = made.message.value && 'session' in made.message.value ? made.message.value.session : undefined;
    if (about) about.sessionId = this.#named.get(about.sessionRef) ?? '';
    return made;
  }

  #wants(entry: Entry): boolean {
    if (entry.kind === 'draining') return true;
    if (!this.#covers(entry)) return false;
    if (entry.successor) this.#refs.add(entry.successor);
    // Whoever watches more than names and a subject sees a successor by its own events.
    const { refs, subject } = this.#scope;
    return (entry.kind === 'succeeded' && !!(refs || subject)) || this.#kinds.has(entry.kind);
  }

  #token(): string {
    return Buffer.from(JSON.stringify([this.#server.epoch, this.#place, this.#binding()])).toString('base64url');
  }

  #binding(): string {
    return createHash('sha256').update(JSON.stringify(this.#scope)).digest('hex');
  }

  #opened(token: string): number {
    let told: unknown;
    try {
      told = JSON.parse(Buffer.from(token, 'base64url').toString());
    } catch {
      // Garbled.
    }
    const [epoch, place, binding] = Array.isArray(told) ? told : [];
    if (binding !== this.#binding()) throw read.invalid('resume_token', 'is not a token of this sidecar for this scope and caller');
    if (epoch === this.#server.epoch) return Number(place);
    throw new Failed(failure('OUT_OF_RANGE', 'the event log no longer reaches back to the resume_token; open again with include_initial_state', 'RESUME_TOKEN_EXPIRED'));
  }
}
