/** Why a session ended. */
export type EndReason =
  | 'IDLE_TIMEOUT'
  | 'ABSOLUTE_TIMEOUT'
  | 'BROWSER_CLOSED'
  | 'LOGOUT'
  | 'REVOKED'
  | 'SUPERSEDED'
  | 'ROTATED';

/** The session, as the sidecar's HTTP door tells it. All spans are in seconds. */
export interface SessionState {
  /** A short name that is no secret: people may tell it to support staff. */
  session_ref?: string;
  /** NONE: this browser has none. EXPIRING: a warning stands. UNKNOWN: it never existed, or was over long ago. */
  state: 'NONE' | 'ACTIVE' | 'EXPIRING' | 'ENDED' | 'UNKNOWN';
  /** When it ends if nothing else happens, on this page's `performance.now()`. */
  endsAt?: number;
  /** When the next warning is due, on the same clock. */
  warnsAt?: number;
  /** The limit by which it ends. */
  limit?: 'IDLE' | 'ABSOLUTE' | 'PRESENCE';
  /** Whether the person can still put the end off. */
  can_extend?: boolean;
  /** Grows with every change, except last activity alone. */
  version?: number;
  idle_timeout?: number;
  /** Whether the policy wants to know of open pages. */
  presence?: boolean;
  login_url?: string;
  /** The end, if it has ended: `message` is the rest of a sentence that begins with "It ended". */
  end?: { reason: EndReason; message: string; end_time: string };
}

/** Long work that keeps the session alive. */
export interface Hold {
  readonly id: string;
  /** It is done. */
  release(): Promise<void>;
}

export interface SessionEventMap {
  /** Anything has changed. */
  state: CustomEvent<SessionState>;
  /** A warning stands: at each point of the policy. */
  warning: CustomEvent<SessionState>;
  /** The warning is withdrawn. */
  cleared: CustomEvent<SessionState>;
  /** A session that this page knew is over. */
  ended: CustomEvent<SessionState>;
  /** It should be over, and the sidecar cannot be reached. */
  unsure: CustomEvent<SessionState>;
}

/** A session, as the pages of this browser know it. */
export class Session extends EventTarget {
  /** `base`: where the door's `session/` is; by default where this module came from, or `/-/session/`. */
  constructor(options?: { base?: string });
  readonly state: Readonly<SessionState>;
  /** Seconds until the end if nothing else happens; Infinity if there is none. */
  readonly left: number;
  /** Which input of this page counts as activity. */
  counts: { pointer: boolean; keys: boolean };
  start(): void;
  stop(): void;
  /** Asks what the state is. That is no activity. */
  refresh(): Promise<Readonly<SessionState>>;
  /** The person wants to stay, `wanted` seconds from now or one idle timeout. False: refused. Undefined: it cannot be known now. */
  extend(wanted?: number): Promise<SessionState | false | undefined>;
  /** The person was active `idleFor` seconds ago. Input on this page is reported without this. */
  activity(idleFor?: number): Promise<SessionState | false | undefined>;
  /** Keeps the session alive until `release`, or the page goes; `ttl` seconds (180 if unset) after it was lost. Null: refused. */
  hold(options?: { purpose?: string; ttl?: number; id?: string }): Promise<Hold | null>;
  addEventListener<K extends keyof SessionEventMap>(
    type: K,
    listener: (event: SessionEventMap[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

/** `<session-sidecar>`: the dialog. */
export class SessionSidecar extends HTMLElement {
  readonly session: Session;
}

declare global {
  interface HTMLElementTagNameMap {
    'session-sidecar': SessionSidecar;
  }
}
