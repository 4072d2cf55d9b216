// Holds that renew themselves while some work goes on.

import { SessionEndedError, SessionUnknownError, SidecarError, SidecarUnreachableError } from './errors.js';
import type { Ended, Held, Milliseconds, Unknown } from './words.js';

// How long to wait at most before a failed renewal is tried again.
const RETRY = 2000;
const SHORTEST = 50;

/** A hold that lasts as long as the work of a `holding`. */
export class Holding {
  readonly holdId: string;
  /** How the session ended meanwhile, if it did. */
  ended: Ended | Unknown | undefined;
  /** The error of the latest renewal, if it failed otherwise. It is tried again. */
  problem: SidecarError | undefined;
  #over = new AbortController();
  #granted: Milliseconds;
  #warn: (message: string) => void;

  /** @internal */
  constructor(holdId: string, ttl: Milliseconds, warn: (message: string) => void) {
    this.holdId = holdId;
    this.#granted = ttl;
    this.#warn = warn;
  }

  /** Is aborted when the session is over, with a SessionEndedError or SessionUnknownError as its reason. */
  get signal(): AbortSignal {
    return this.#over.signal;
  }

  /** Throws SessionEndedError or SessionUnknownError if the session is over: for long work, between its steps. */
  throwIfEnded(): void {
    this.#over.signal.throwIfAborted();
  }

  /** @internal How long to wait before the next pulse: a third of what was granted. */
  granted({ grantedTtl }: Held): Milliseconds {
    this.problem = undefined;
    this.#granted = grantedTtl;
    return Math.max(grantedTtl / 3, SHORTEST);
  }

  /** @internal It lapses by itself. */
  unreleased(error: unknown) {
    if (error instanceof SessionEndedError || error instanceof SessionUnknownError) this.failed(error);
    else if (error instanceof SidecarError) this.problem = error;
    else throw error;
  }

  /** @internal How long to wait before it is tried again; undefined if the session is over. */
  failed(error: unknown): Milliseconds | undefined {
    if (!(error instanceof SidecarError)) throw error;
    if (error instanceof SessionEndedError || error instanceof SessionUnknownError) {
      this.ended = error.answer;
      this.#over.abort(error);
      return undefined;
    }
    if (!this.problem) this.#warn(`a hold could not be renewed and is tried again: ${error.message}`);
    this.problem = error;
    const away = error instanceof SidecarUnreachableError;
    return Math.max(away ? Math.min(this.#granted / 3, RETRY) * (0.5 + Math.random() / 2) : this.#granted / 3, SHORTEST);
  }
}
