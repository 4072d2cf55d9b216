/**
 * A sidecar in this process, for the tests of an application: no program, no network, and a clock that goes when you say so.
 *
 *     const sidecar = new FakeSidecar({ policy: { idle_timeout: '15m' } });
 *     const { sessionId } = await sidecar.create();
 *     await sidecar.advance(16 * 60_000);
 *     assert(!(await sidecar.touch(sessionId)).allowed);
 *
 * @packageDocumentation
 */

import type { Message } from '@bufbuild/protobuf';
import { SidecarAdmin } from '../admin.js';
import type { Call } from '../calls.js';
import { Sidecar, type SidecarOptions, type WatchOptions } from '../client.js';
import type { WatchExpiryRequest, WatchExpiryResponse } from '../proto/sessionsidecar/v1/session_service_pb.js';
import type { Stream, Transport } from '../transport.js';
import { Watch } from '../watch.js';
import type { Event, Milliseconds } from '../words.js';
import type { Feed } from './feed.js';
import { type PolicyKeys, read } from './policy.js';
import { Server } from './server.js';

export type { PolicyKeys, RuleKeys, Span } from './policy.js';

export interface FakeOptions extends Pick<SidecarOptions, 'tenant' | 'fail' | 'logger'> {
  /** The policy: that which a new user meets, with these keys. */
  policy?: PolicyKeys;
  /** In its place: several by their names, as the table `policy` of a policy file has them. */
  policies?: Readonly<Record<string, PolicyKeys>>;
  /** The tenants that it serves. Default: its own. */
  tenants?: Iterable<string>;
}

class FakeTransport implements Transport {
  constructor(readonly server: Server) {}

  async call({ method, request }: Pick<Call<unknown>, 'method' | 'request'>): Promise<Message> {
    return this.server.ask(method, request);
  }

  open(request: WatchExpiryRequest): Stream {
    return new FakeStream(this.server, request);
  }

  alarm(after: Milliseconds, ring: () => Promise<Milliseconds | undefined>): () => Promise<void> {
    const silence = this.server.alarm(after, ring);
    return async () => silence();
  }

  close() {}
}

/** A stream of the fake: it opens when it is first read, as one over the wire does. */
class FakeStream implements Stream {
  #feed: Feed | undefined;
  #closed = false;

  constructor(readonly server: Server, readonly request: WatchExpiryRequest) {}

  async next(): Promise<WatchExpiryResponse | undefined> {
    while (!this.#closed) {
      this.#feed ??= this.server.watch(this.request);
      const told = this.#feed.told();
      if (told) return told;
      await this.server.changed();
    }
    return undefined;
  }

  close() {
    this.#closed = true;
    this.server.tell();
  }
}

/** A Watch of a FakeSidecar. It waits as one over the wire does; `told` does not. */
export class FakeWatch extends Watch {
  #next: Promise<IteratorResult<Event, void>> | undefined;

  override next(): Promise<IteratorResult<Event, void>> {
    const next = this.#next ?? super.next();
    this.#next = undefined;
    return next;
  }

  /** All that it has to tell by now. */
  async told(): Promise<Event[]> {
    const told: Event[] = [];
    for (;;) {
      const next = (this.#next ??= super.next());
      // Nothing of the fake takes longer than that.
      const outcome = await Promise.race([next, new Promise<undefined>((resolve) => setImmediate(() => resolve(undefined)))]).catch((error) => {
        this.#next = undefined;
        throw error;
      });
      if (!outcome) return told;
      this.#next = undefined;
      if (outcome.done) return told;
      told.push(outcome.value);
    }
  }
}

/** A Sidecar that answers by itself, as `session-sidecar serve` would: same verbs, answers, errors and events. */
export class FakeSidecar extends Sidecar {
  constructor({ policy = {}, policies, tenant = '', tenants = [tenant], ...options }: FakeOptions = {}) {
    if (policies && Object.keys(policy).length) throw new TypeError('policy and policies: give one of them');
    super({ ...options, tenant }, new FakeTransport(new Server(read(policies ?? { default: policy }), tenants)));
  }

  /** @internal */
  get server(): Server {
    return (this.transport as FakeTransport).server;
  }

  /** Moves the clock forward, from one thing that is due to the next, and answers its new time. All that became due has happened then,
   * and each `holding` has renewed its hold. */
  async advance(duration: Milliseconds): Promise<Date> {
    return this.server.advance(duration);
  }

  /** Watches are told `draining`, as if the sidecar were about to stop. It goes on. */
  drain(): void {
    this.server.drain();
  }

  /** A SidecarAdmin over the same sessions, with `listSessions` and `endSessions`. The fake keeps no histories and counts: the other
   * verbs reject with NotPermittedError. */
  admin(): SidecarAdmin {
    return new SidecarAdmin({ tenant: this.settings.tenant, logger: this.outage.logger }, this.transport);
  }

  override watch(options: WatchOptions): FakeWatch {
    return super.watch(options) as FakeWatch;
  }

  /** @internal */
  override opened(request: WatchExpiryRequest): Watch {
    return new FakeWatch(this.transport, request, () => {}, () => 0);
  }
}
