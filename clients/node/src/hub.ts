// Being told of ends: one watch for all that is open here.

import { setTimeout as sleep } from 'node:timers/promises';
import type { Sidecar } from './client.js';
import { NotPermittedError, SidecarError } from './errors.js';
import type { Watch } from './watch.js';
import type { Answer, ClearedEvent, Ended, Event, SessionName, Unknown, WarningEvent } from './words.js';

// How long to wait before sessions are asked for again that nobody could tell about, or that this listener tells nothing of.
const AGAIN = 500;
const AT_ONCE = 100;

/** What happens to a session. Any `ended` but ROTATED, or an `unknown`, is the last. */
export type Told = WarningEvent | ClearedEvent | Ended | Unknown;

/** What happens to one session, wherever it goes on. */
export interface Subscription {
  tell(told: Told): void;
}

interface Place {
  readonly sessionId: string;
  sessionRef: string;
  /** Whether the session goes on under another id than that of this subscription. */
  moved: boolean;
}

/** All subscriptions. Its watch is open as long as there are any. */
export class Hub {
  readonly #sidecar: Sidecar;
  readonly #all = new Map<Subscription, Place>();
  readonly #byRef = new Map<string, Set<Subscription>>();
  #watch: Watch | undefined;
  #doubting = false;
  // A listener that tells of no whole tenant is asked in its place.
  #polls = false;

  constructor(sidecar: Sidecar) {
    this.#sidecar = sidecar;
  }

  /** Begins to tell, and answers what is so of the session now. Whatever happens after that answer is told. */
  async subscribe(subscription: Subscription, sessionId: string): Promise<Answer> {
    this.#all.set(subscription, { sessionId, sessionRef: '', moved: false });
    this.#open();
    try {
      const answer = await this.#ask(subscription);
      // What happened between that answer and now was told to nobody.
      return answer.kind === 'live' ? await this.#ask(subscription) : answer;
    } catch (error) {
      this.unsubscribe(subscription);
      throw error;
    }
  }

  unsubscribe(subscription: Subscription) {
    this.#move(subscription, '');
    this.#all.delete(subscription);
    if (this.#all.size > 0) return;
    this.#watch?.close();
    this.#watch = undefined;
  }

  #open() {
    if (this.#watch || this.#polls) return;
    const watch = (this.#watch = this.#sidecar.watch({ wholeTenant: true, initialState: false }));
    this.#follow(watch).catch((error) => {
      if (this.#watch === watch) this.#watch = undefined;
      if (!(error instanceof NotPermittedError)) throw error;
      // A listener with `verbs=watch-own`. A watch of ids would have to begin anew with each socket.
      this.#polls = true;
      this.#doubt();
    });
  }

  async #follow(watch: Watch) {
    for await (const event of watch) await this.#heard(event);
  }

  async #heard(event: Event) {
    // Of what happened before nobody told.
    if (event.kind === 'snapshotEnd' || event.kind === 'beginAnew') await this.#look();
    if (event.kind !== 'ended' && event.kind !== 'warning' && event.kind !== 'cleared') return;
    for (const subscription of [...(this.#byRef.get(event.session.sessionRef) ?? [])]) {
      if (event.kind !== 'ended') subscription.tell(event);
      else this.#tellEnd(subscription, { kind: 'ended', allowed: false, sessionRef: event.session.sessionRef, ...event.end, end: event.end });
    }
  }

  #tellEnd(subscription: Subscription, over: Ended) {
    if (over.reason === 'ROTATED' && over.successorRef) {
      this.#all.get(subscription)!.moved = true;
      this.#move(subscription, over.successorRef);
    }
    subscription.tell(over);
  }

  /** From now on it is about this ref; an empty one: about none. */
  #move(subscription: Subscription, ref: string) {
    const place = this.#all.get(subscription);
    if (!place) return;
    const before = this.#byRef.get(place.sessionRef);
    before?.delete(subscription);
    if (before?.size === 0) this.#byRef.delete(place.sessionRef);
    place.sessionRef = ref;
    if (ref) this.#byRef.set(ref, (this.#byRef.get(ref) ?? new Set()).add(subscription));
  }

  async #ask(subscription: Subscription): Promise<Answer> {
    const answer = await this.#sidecar.check(this.#name(subscription));
    if (answer.kind === 'unreachable') this.#doubt();
    else this.#move(subscription, answer.sessionRef);
    return answer;
  }

  #name(subscription: Subscription): SessionName {
    const { moved, sessionId, sessionRef } = this.#all.get(subscription)!;
    return moved ? { sessionRef } : sessionId;
  }

  /** Looks at all of them, in a moment. */
  #doubt() {
    if (this.#doubting) return;
    this.#doubting = true;
    sleep(AGAIN, undefined, { ref: false }).then(async () => {
      this.#doubting = false;
      this.#polls &&= this.#all.size > 0;
      if (this.#all.size > 0) await this.#look();
      if (this.#polls) this.#doubt();
    }).catch((error) => {
      // It serves us no more, and perhaps will again: nobody knows.
      if (!(error instanceof SidecarError)) throw error;
      this.#doubt();
    });
  }

  /** Tells those whose session is over by now. */
  async #look() {
    const waiting = [...this.#all.keys()];
    for (let start = 0; start < waiting.length; start += AT_ONCE) {
      const part = waiting.slice(start, start + AT_ONCE).filter((each) => this.#all.has(each));
      if (part.length === 0) continue;
      const answers = await this.#sidecar.checkMany(part.map((each) => this.#name(each)));
      for (const [place, answer] of answers.entries()) {
        const subscription = part[place]!;
        if (answer instanceof Error || !this.#all.has(subscription)) continue;
        if (answer.kind === 'unreachable') this.#doubt();
        else if (answer.kind === 'live') this.#move(subscription, answer.sessionRef);
        else await this.#tellOver(subscription);
      }
    }
  }

  /** Why, is told only of one. */
  async #tellOver(subscription: Subscription) {
    const answer = await this.#ask(subscription);
    if (!this.#all.has(subscription)) return;
    if (answer.kind === 'unknown') subscription.tell(answer);
    if (answer.kind !== 'ended') return;
    this.#tellEnd(subscription, answer);
    // What became of that one is not known yet.
    if (answer.reason === 'ROTATED') this.#doubt();
  }
}
