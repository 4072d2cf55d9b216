// Connections, and what a client asks of whatever stands behind it, a sidecar or the fake.

import { type DescMessage, type DescMethod, type Message, fromBinary, toBinary } from '@bufbuild/protobuf';
import type { Client, ClientReadableStream, ServiceError } from '@grpc/grpc-js';
import type { Access } from './access.js';
import type { Call } from './calls.js';
import { decode, type Failure, failure } from './errors.js';
import { SessionService, type WatchExpiryRequest, type WatchExpiryResponse } from './proto/sessionsidecar/v1/session_service_pb.js';
import type { Milliseconds } from './words.js';

/** What the wire failed with. */
export class Failed extends Error {
  constructor(readonly failure: Failure) {
    super(failure.code);
  }
}

/** What carries out calls. */
export interface Transport {
  /** The answer to one call. Throws Failed. */
  call(call: Pick<Call<unknown>, 'method' | 'request'>, deadline: Milliseconds): Promise<Message>;
  open(request: WatchExpiryRequest): Stream;
  /** Rings after so long, and again after as long as `ring` answers. Answers what silences it, once a ring under way is over. */
  alarm(after: Milliseconds, ring: () => Promise<Milliseconds | undefined>): () => Promise<void>;
  close(): void;
}

/** One stream of a watch. */
export interface Stream {
  /** The next message; undefined at the end. Throws Failed, also if none came within the patience. */
  next(patience: Milliseconds): Promise<WatchExpiryResponse | undefined>;
  close(): void;
}

const pathOf = (method: DescMethod) => `/${method.parent.typeName}/${method.name}`;
const serialize = (desc: DescMessage) => (message: Message) => Buffer.from(toBinary(desc, message));
const deserialize = (desc: DescMessage) => (bytes: Buffer) => fromBinary(desc, bytes);
const SILENT = failure('UNAVAILABLE', 'no heartbeat came in time', 'SILENT');

/** A sidecar. It connects at its first call. */
export class Wire implements Transport {
  #client: Client | undefined;

  constructor(readonly access: Access) {}

  call({ method, request }: Pick<Call<unknown>, 'method' | 'request'>, deadline: Milliseconds): Promise<Message> {
    this.#client ??= this.access.connect();
    return new Promise((resolve, reject) => {
      let late = false;
      const call = this.#client!.makeUnaryRequest(
        pathOf(method), serialize(method.input), deserialize(method.output), request, this.access.metadata(), {},
        (error: ServiceError | null, answer?: Message) => {
          clearTimeout(timer);
          if (!error) resolve(answer!);
          else reject(new Failed(late ? failure('DEADLINE_EXCEEDED', `no answer within ${Math.round(deadline)} ms`) : decode(error)));
        },
      );
      // Not gRPC's own deadline: after the program has kept the event loop busy, that comes before an answer that is there already.
      const timer = setTimeout(() => setImmediate(() => setImmediate(() => {
        late = true;
        call.cancel();
      })), deadline);
    });
  }

  open(request: WatchExpiryRequest): Stream {
    return new WireStream(this.access, request);
  }

  alarm(after: Milliseconds, ring: () => Promise<Milliseconds | undefined>): () => Promise<void> {
    let ringing: Promise<void> = Promise.resolve();
    let silenced = false;
    const arm = (pause: Milliseconds) => setTimeout(() => {
      ringing = ring().then((again) => {
        if (again !== undefined && !silenced) timer = arm(again);
      });
    }, pause).unref();
    let timer = arm(after);
    return () => {
      silenced = true;
      clearTimeout(timer);
      return ringing;
    };
  }

  close() {
    this.#client?.close();
    this.#client = undefined;
  }
}

/** A stream on a connection of its own. */
class WireStream implements Stream {
  #client: Client;
  #call: ClientReadableStream<WatchExpiryResponse>;
  #messages: AsyncIterator<WatchExpiryResponse>;

  constructor(access: Access, request: WatchExpiryRequest) {
    const method = SessionService.method.watchExpiry;
    this.#client = access.connect();
    this.#call = this.#client.makeServerStreamRequest(
      pathOf(method), serialize(method.input), deserialize(method.output) as (bytes: Buffer) => WatchExpiryResponse, request, access.metadata(),
    );
    this.#call.on('error', () => {}); // One that comes after the last `next` concerns nobody.
    this.#messages = this.#call[Symbol.asyncIterator]();
  }

  async next(patience: Milliseconds): Promise<WatchExpiryResponse | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const silence = new Promise<never>((_, reject) => {
      timer = setTimeout(() => setImmediate(() => setImmediate(() => reject(new Failed(SILENT)))), patience);
    });
    try {
      const { value, done } = await Promise.race([this.#messages.next(), silence]);
      return done ? undefined : value;
    } catch (error) {
      throw error instanceof Failed ? error : new Failed(decode(error as ServiceError));
    } finally {
      clearTimeout(timer);
      silence.catch(() => {});
    }
  }

  close() {
    this.#call.cancel();
    this.#client.close();
  }
}
