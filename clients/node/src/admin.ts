// The client of SessionAdminService, and what it answers. Names are those of session_admin_service.proto in camelCase, where their
// units and limits stand.

import { as, command } from './calls.js';
import { BaseClient, type ClientOptions } from './client.js';
import {
  EndSessionsResponseSchema, type ExplainSessionResponse, ExplainSessionResponseSchema, type GetStatsResponse, GetStatsResponseSchema, HistoryEntrySchema,
  ListPoliciesResponseSchema, type ListSessionsResponse, SessionAdminService,
} from './proto/sessionsidecar/v1/session_admin_service_pb.js';
import type { Transport } from './transport.js';
import type { Actor, ClearedCause, End, EndReason, HoldKind, Limit, Milliseconds, Session, SessionName, SessionState } from './words.js';
import { plain, session, sessionName } from './wire.js';

// A page of sessions or an end of thousands is not asked for while somebody waits for a page of theirs.
const DEADLINE = 10_000;

/** Which sessions: all that match all that is given. */
export interface SessionFilter {
  subject?: string;
  /** Default: those that live. */
  states?: Iterable<Exclude<SessionState, 'OTHER'>>;
  labels?: Readonly<Record<string, string>>;
  policy?: string;
}

/** Who asks, for the audit log. */
export interface Asked {
  actorId?: string;
}

export interface ListOptions extends SessionFilter, Asked {
  /** 1 to 1,000; default 100. */
  pageSize?: number;
}

export interface EndSessionsOptions extends SessionFilter, Asked {
  /** Must be true to end all sessions of the tenant, and only then. */
  wholeTenant?: boolean;
  /** These are spared. */
  excepted?: Iterable<SessionName>;
  /** Only counts. */
  dryRun?: boolean;
  /** Default: REVOKED. */
  reason?: 'LOGOUT' | 'REVOKED';
  actor?: Exclude<Actor, 'OTHER'>;
  note?: string;
}

/** How many live sessions matched, and how many of them the call ended; the refs of the first 1,000 that matched. */
export interface SessionsEnded {
  readonly matchedCount: number;
  readonly endedCount: number;
  readonly sessionRefs: readonly string[];
}

/** One thing that happened to a session. `watcherCount` of a warning: so many were told. 0: nobody could have shown it. */
export type HistoryEntry = { readonly time: Date } & (
  | { readonly kind: 'warning'; readonly limit?: Limit; readonly point?: Milliseconds; readonly expireTime?: Date; readonly watcherCount: number }
  | { readonly kind: 'cleared'; readonly limit?: Limit; readonly cause?: ClearedCause; readonly expireTime?: Date; readonly watcherCount: number }
  | { readonly kind: 'extended'; readonly grantedDuration?: Milliseconds; readonly clampedBy?: Limit }
  | { readonly kind: 'holdStarted'; readonly holdId: string; readonly holdKind?: HoldKind; readonly purpose: string; readonly grantedTtl?: Milliseconds }
  | { readonly kind: 'holdEnded'; readonly holdId: string; readonly holdKind?: HoldKind; readonly released: boolean; readonly renewalCount: number }
  | { readonly kind: 'rotated'; readonly otherRef: string; readonly isSuccessor: boolean; readonly reauthenticated: boolean }
  | { readonly kind: 'policyChanged'; readonly policyRevision: number }
  | { readonly kind: 'unenforcedEnd'; readonly reason?: EndReason }
  | { readonly kind: 'ended'; readonly end: End; readonly watcherCount: number }
);

/** What became of touches by one rule. */
export interface RuleTally {
  readonly rule: string;
  readonly counted: boolean;
  readonly touchCount: number;
  readonly firstTime?: Date;
  readonly lastTime?: Date;
}

/** What is kept of one session's life. `summary` is the answer in a sentence; the history begins with the oldest. */
export interface SessionExplanation {
  readonly session: Session;
  readonly summary: string;
  readonly history: readonly HistoryEntry[];
  readonly historyDroppedCount: number;
  readonly tallies: readonly RuleTally[];
}

/** One explanation for each session, the latest first; none if nothing is known. `truncated`: there were more. */
export interface Explained {
  readonly explanations: readonly SessionExplanation[];
  readonly truncated: boolean;
}

/** A policy as it is in force: its worst case from a person's last input to the first refused request, how it departs from the
 * standards, and what other sidecars of a shared store have of it, where that is not the same. */
export interface PolicyInfo {
  readonly name: string;
  readonly revision: number;
  readonly active: boolean;
  readonly enforced: boolean;
  readonly idleTimeout?: Milliseconds;
  readonly absoluteTimeout?: Milliseconds;
  readonly toml: string;
  readonly worstCase: readonly { readonly name: string; readonly duration: Milliseconds; readonly explanation: string }[];
  readonly worstCaseDuration?: Milliseconds;
  readonly findings: readonly { readonly source: string; readonly key: string; readonly problem: string }[];
  readonly elsewhere: readonly { readonly missing: boolean; readonly revision: number; readonly sidecarCount: number }[];
}

/** The policies, by name; and why the policy file as it is now is not in force, if it is not. */
export interface Policies {
  readonly policies: readonly PolicyInfo[];
  readonly policyFileProblem: string;
}

/** How many sessions there are by state, and remembered ends by reason. What is not told is 0. */
export interface Stats {
  readonly states: Readonly<Partial<Record<SessionState, number>>>;
  readonly reasons: Readonly<Partial<Record<EndReason, number>>>;
  readonly ghostSessionCount: number;
  readonly workingSessionCount: number;
  readonly unenforcedEndCount: number;
}

const method = SessionAdminService.method;

/** SessionAdminService of the sidecar, for operators and support staff, one tenant at a time: its listener must have the verb group
 * `admin`. All that fails rejects, an unreachable sidecar too. Calls have 10 s. */
export class SidecarAdmin extends BaseClient {
  /** @internal The second argument is the fake's. */
  constructor(options?: ClientOptions, transport?: Transport);
  constructor(options?: ClientOptions);
  constructor(options: ClientOptions = {}, transport?: Transport) {
    super({ deadline: DEADLINE, ...options }, transport);
  }

  /** All sessions that match. Each page is asked for when the one before it has been read; what begins or ends meanwhile may be
   * missing or there. */
  async *listSessions({ pageSize = 100, actorId, ...filter }: ListOptions = {}): AsyncGenerator<Session, void> {
    let pageToken = '';
    do {
      const page: ListSessionsResponse = await this.run(
        command(method.listSessions, { filter: this.#filter(filter), pageSize, pageToken, actorId }, (answer) => answer),
      );
      yield* page.sessions.map(session);
      pageToken = page.nextPageToken;
    } while (pageToken);
  }

  /** Ends all live sessions that match and began before the call. Not repeated when its connection is lost: ask listSessions what
   * came of it. */
  async endSessions({ subject, states, labels, policy, excepted = [], dryRun = false, ...rest }: EndSessionsOptions): Promise<SessionsEnded> {
    const filter = this.#filter({ subject, states, labels, policy });
    return this.run(command(method.endSessions, { ...rest, filter, except: [...excepted], dryRun }, as(EndSessionsResponseSchema), dryRun));
  }

  /** All that is kept of a session's life: "why was I logged out?". By its id: of those too that went on in its place. */
  async explain(name: SessionName, { actorId }: Asked = {}): Promise<Explained> {
    const { name: named } = sessionName(name);
    return this.#explain({ actorId, [named.case!]: named.value });
  }

  /** The lives of a person's sessions that were live at some time of a period: up to 100, the latest first. */
  async explainSubject(subject: string, { actorId, ...period }: Asked & { startTime?: Date; endTime?: Date } = {}): Promise<Explained> {
    return this.#explain({ actorId, subjectPeriod: { subject, ...period } });
  }

  /** The policies as they are in force, and how they depart from the standards. */
  async listPolicies({ actorId }: Asked = {}): Promise<Policies> {
    return this.run(command(method.listPolicies, { actorId }, as(ListPoliciesResponseSchema)));
  }

  /** Counts the tenant's sessions. */
  async stats({ actorId }: Asked = {}): Promise<Stats> {
    return this.run(command(method.getStats, { tenant: this.settings.tenant, actorId }, counted));
  }

  #filter({ states = [], ...filter }: SessionFilter) {
    return { ...filter, states: [...states], tenant: this.settings.tenant };
  }

  #explain(given: object) {
    return this.run(command(method.explainSession, { tenant: this.settings.tenant, ...given }, explained));
  }
}

function explained(message: ExplainSessionResponse): Explained {
  const { truncated, explanations } = plain<any>(ExplainSessionResponseSchema, message);
  message.explanations.forEach(({ history }, place) => {
    // What is too new for this client is left out.
    explanations[place].history = history.filter(({ entry }) => entry.case).map((each) => {
      const { time, [each.entry.case!]: body } = plain<any>(HistoryEntrySchema, each);
      const { kind: holdKind, ...rest } = body;
      return { kind: each.entry.case!, time, ...rest, ...(holdKind && { holdKind }) };
    });
  });
  return { explanations, truncated };
}

function counted(message: GetStatsResponse): Stats {
  const { states, reasons, ...rest } = plain<any>(GetStatsResponseSchema, message);
  const by = (key: string, counts: any[]) => Object.fromEntries(counts.filter((each) => each[key]).map((each) => [each[key], each.sessionCount]));
  return { ...rest, states: by('state', states), reasons: by('reason', reasons) };
}
