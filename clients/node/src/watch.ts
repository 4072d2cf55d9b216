// A watch that never gives up: it reconnects for ever, with full jitter, and resumes after the last message that it received.

import { setTimeout as sleep } from 'node:timers/promises';
import { clone } from '@bufbuild/protobuf';
import { type Failure, InvalidRequestError, NotPermittedError, toError } from './errors.js';
import { type WatchExpiryRequest, WatchExpiryRequestSchema, type WatchExpiryResponse } from './proto/sessionsidecar/v1/session_service_pb.js';
import { Failed, type Stream, type Transport } from './transport.js';
import type { BeginAnewEvent, Event, Milliseconds, SnapshotEvent } from './words.js';
import { event as eventOf, milliseconds } from './wire.js';

export const FIRST_PAUSE = 100;
export const LONGEST_PAUSE = 10_000;
// A stream is dead if nothing came for so many heartbeats.
const SILENT_HEARTBEATS = 3;

/** What a watch asks for next, and what it makes of what comes. It has no clock and does no I/O. */
export class Course {
  readonly silence: Milliseconds;
  connected = false;
  #request: WatchExpiryRequest;
  #random: () => number;
  #warn: (message: string) => void;
  #failures = 0;
  // Whether the state that the watch began with was told to its end; a token from within it begins it again.
  #complete: boolean;
  #toldSome = false;
  // What a resumed stream began with, while it may still turn out to be the initial state again.
  #held: SnapshotEvent[] | undefined;

  constructor(request: WatchExpiryRequest, warn: (message: string) => void = () => {}, random: () => number = Math.random) {
    this.#request = request;
    this.#warn = warn;
    this.#random = random;
    this.#complete = request.resumeToken !== '';
    this.silence = SILENT_HEARTBEATS * (request.heartbeatInterval ? milliseconds(request.heartbeatInterval) : 0);
  }

  /** Where to go on, after a restart of this program too. */
  get resumeToken(): string {
    return this.#request.resumeToken;
  }

  /** What to ask for now. */
  request(): WatchExpiryRequest {
    this.#held = this.#request.resumeToken ? [] : undefined;
    return clone(WatchExpiryRequestSchema, this.#request);
  }

  /** What a message tells, if it tells anything. */
  heard(message: WatchExpiryResponse): Event[] {
    const event = eventOf(message);
    this.connected = true;
    const told = this.#sorted(event);
    this.#complete ||= event?.kind === 'snapshotEnd';
    this.#toldSome ||= event?.kind === 'snapshot';
    if (this.#complete && !this.#held?.length) {
      this.#request.resumeToken = message.resumeToken;
      this.#request.includeInitialState = false;
    }
    return told;
  }

  /** The sidecar tells the initial state again to whoever resumes soon after it, with what had happened meanwhile still to come.
   * Snapshots at the start of a resumed stream are that, unless they tell where a session went on. */
  #sorted(event: Event | undefined): Event[] {
    const told = event ? [event] : [];
    if (!this.#held) return told;
    if (event?.kind === 'snapshot' && event.predecessorRef) {
      this.#held.push(event);
      return [];
    }
    const held = this.#held;
    this.#held = undefined;
    const again = event?.kind === 'snapshot' || event?.kind === 'snapshotEnd';
    return [...(again ? [this.#beginAnew('INITIAL_STATE_AGAIN')] : []), ...held, ...told];
  }

  #beginAnew(reason: string): BeginAnewEvent {
    this.#request.resumeToken = '';
    this.#request.includeInitialState = true;
    this.#complete = this.#toldSome = false;
    return { kind: 'beginAnew', reason };
  }

  /** After the stream ended, having stood for so long: what to tell, and how long to wait before the next one. Throws what no
   * reconnecting can mend. */
  broke(failure: Failure | undefined, stood: Milliseconds): [BeginAnewEvent | undefined, Milliseconds] {
    const anew = this.#anew(failure);
    if (!anew && failure) {
      const error = toError(failure);
      // A stream that was let in has outlived its token: the next one shows that of now.
      const outlived = this.connected && failure.code === 'UNAUTHENTICATED';
      if (error instanceof InvalidRequestError || (error instanceof NotPermittedError && !outlived)) throw error;
    }
    if (this.connected) this.#warn(`a watch was cut off (${failure ? failure.reason || failure.code : 'the stream ended'}) and reconnects`);
    this.connected = false;
    if (stood >= LONGEST_PAUSE) this.#failures = 0;
    const pause = this.#random() * Math.min(FIRST_PAUSE * 2 ** this.#failures, LONGEST_PAUSE);
    this.#failures = Math.min(this.#failures + 1, 16);
    return [anew, pause + (failure?.retryAfter ?? 0)];
  }

  #anew(failure: Failure | undefined): BeginAnewEvent | undefined {
    if (failure?.code === 'OUT_OF_RANGE') return this.#beginAnew(failure.reason);
    if (failure?.code === 'INVALID_ARGUMENT' && failure.fields.length === 1 && failure.fields[0] === 'resume_token') return this.#beginAnew('RESUME_TOKEN_INVALID');
    if (!this.#complete && this.#toldSome) return this.#beginAnew('INITIAL_STATE_INCOMPLETE');
    return undefined;
  }
}

/** The events of a watch, for ever: `for await (const event of watch)`. `close()`, from anywhere, ends the iteration. */
export class Watch implements AsyncIterableIterator<Event> {
  #transport: Transport;
  #course: Course;
  #closing = new AbortController();
  #stream: Stream | undefined;
  #events: AsyncGenerator<Event, void>;

  /** @internal */
  constructor(transport: Transport, request: WatchExpiryRequest, warn: (message: string) => void, random?: () => number) {
    this.#transport = transport;
    this.#course = new Course(request, warn, random);
    this.#events = this.#run();
  }

  /** Give it to `watch` to go on here after a restart of this program. Empty until the initial state is complete. */
  get resumeToken(): string {
    return this.#course.resumeToken;
  }

  /** Whether a stream stands now. */
  get connected(): boolean {
    return this.#course.connected;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next event. Rejects with NotPermittedError and InvalidRequestError only. */
  next(): Promise<IteratorResult<Event, void>> {
    return this.#events.next();
  }

  /** Leaving a `for await` ends the watch. */
  return(): Promise<IteratorResult<Event, void>> {
    this.close();
    return this.#events.return();
  }

  /** Ends the watch. */
  close(): void {
    this.#closing.abort();
    this.#stream?.close();
  }

  async *#run(): AsyncGenerator<Event, void> {
    while (!this.#closing.signal.aborted) {
      const began = performance.now();
      const failure = yield* this.#streamed();
      if (this.#closing.signal.aborted) return;
      const [anew, pause] = this.#course.broke(failure, performance.now() - began);
      if (anew) yield anew;
      if (pause > 0) await sleep(pause, undefined, { signal: this.#closing.signal }).catch(() => {});
    }
  }

  /** One stream; answers how it ended. */
  async *#streamed(): AsyncGenerator<Event, Failure | undefined> {
    const stream = (this.#stream = this.#transport.open(this.#course.request()));
    try {
      for (;;) {
        const message = await stream.next(this.#course.silence);
        if (!message || this.#closing.signal.aborted) return undefined;
        yield* this.#course.heard(message);
      }
    } catch (error) {
      if (error instanceof Failed) return error.failure;
      throw error;
    } finally {
      stream.close();
    }
  }
}
