// What can go wrong, and how an error of the wire becomes one of these. None of them ever holds a session id.

import { fromBinary } from '@bufbuild/protobuf';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { type Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema, StatusSchema } from './proto/errors_pb.js';
import type { Ended, Milliseconds, Unknown, Unreachable } from './words.js';

/** Every error of this package but TypeErrors, which are mistakes in the types of arguments. */
export class SidecarError extends Error {
  override get name() {
    return this.constructor.name;
  }
}

/** A command on a session that has ended. `answer` tells why, who and when. */
export class SessionEndedError extends SidecarError {
  constructor(readonly answer: Ended) {
    super(`session ${answer.sessionRef} has ended: ${answer.reason ?? 'for a reason not told'}`);
  }
}

/** A command on a session that is not known. */
export class SessionUnknownError extends SidecarError {
  constructor(readonly answer: Unknown) {
    super(`session ${answer.sessionRef} is not known`);
  }
}

/** A command while the sidecar cannot be reached in time, or cannot know. It may have been carried out: repeating it is safe, with
 * the same `requestId` where it takes one. */
export class SidecarUnreachableError extends SidecarError {
  constructor(readonly answer: Unreachable) {
    super(`session-sidecar does not answer: ${answer.code}: ${answer.message}`);
  }
}

/** A command that the policy or the state refuses; `reason` is one word, such as SESSION_EXISTS, EXTENSION_LIMIT, HOLD_BUDGET,
 * SUBJECT_CAP, REQUEST_ID_REUSED, READ_ONLY_SESSION. */
export class RefusedError extends SidecarError {
  readonly sessionRef: string;

  constructor(readonly code: string, message: string, readonly reason: string, readonly metadata: Readonly<Record<string, string>>) {
    super(`${reason || code}: ${message}`);
    this.sessionRef = metadata['session_ref'] ?? '';
  }
}

/** A request that can never succeed: a mistake in the program, or an id that somebody sent and that cannot be one. `fields` are
 * named as in the .proto. */
export class InvalidRequestError extends SidecarError {
  constructor(message: string, readonly fields: readonly string[] = []) {
    super(message);
  }
}

/** This listener does not serve this verb or tenant to this caller, or is none of session-sidecar: a mistake in the configuration. */
export class NotPermittedError extends SidecarError {
  constructor(readonly code: string, message: string, readonly reason = '') {
    super(`${reason || code}: ${message}`);
  }
}

/** An error of the wire, decoded: of a call, or of one item of a batch. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly fields: readonly string[];
  readonly retryAfter?: Milliseconds;
}

export function failure(code: string, message: string, reason = '', rest: Partial<Failure> = {}): Failure {
  return { code, message, reason, metadata: {}, fields: [], ...rest };
}

/** Whether it was the connection that failed, not the sidecar that said so. */
export const lostConnection = ({ code, reason }: Failure) => code === 'UNAVAILABLE' && !reason;

/** What an error of grpc-js tells. */
export function decode(error: ServiceError): Failure {
  let reason = '';
  const rest: { -readonly [key in keyof Failure]?: Failure[key] } = {};
  for (const encoded of (error.metadata as Metadata | undefined)?.get('grpc-status-details-bin') ?? []) {
    try {
      for (const detail of fromBinary(StatusSchema, encoded as Buffer).details) {
        // They are google.rpc's, by the same names in a package of our own.
        detail.typeUrl = detail.typeUrl.replace('google.rpc.', 'sessionsidecar.client.v1.');
        const info = anyUnpack(detail, ErrorInfoSchema);
        if (info) {
          reason = info.reason;
          rest.metadata = info.metadata;
        }
        const bad = anyUnpack(detail, BadRequestSchema);
        if (bad) rest.fields = bad.fieldViolations.map((violation) => violation.field);
        const delay = anyUnpack(detail, RetryInfoSchema)?.retryDelay;
        if (delay) rest.retryAfter = Number(delay.seconds) * 1000 + delay.nanos / 1e6;
      }
    } catch {
      // Whatever answered is no sidecar; its code says enough.
    }
  }
  return failure(status[error.code] ?? 'UNKNOWN', error.details ?? '', reason, rest);
}

// A sidecar that knows the caller and the request answers with one of these; all others mean that it cannot be known.
const FINAL = new Set(['FAILED_PRECONDITION', 'NOT_FOUND', 'ALREADY_EXISTS', 'OUT_OF_RANGE']);

/** The answer that nobody knows; undefined if the failure says something. */
export function unreachable(told: Failure, allowed: boolean): Unreachable | undefined {
  const refused = told.code === 'RESOURCE_EXHAUSTED' && told.reason !== '';
  if (FINAL.has(told.code) || refused || !(toError(told) instanceof RefusedError)) return undefined;
  const { code, message, retryAfter } = told;
  return { kind: 'unreachable', allowed, code, message, ...(retryAfter === undefined ? {} : { retryAfter }) };
}

/** The error for a failure that is about the caller or is a refusal. */
export function toError(told: Failure): InvalidRequestError | NotPermittedError | RefusedError {
  switch (told.code) {
    case 'INVALID_ARGUMENT':
      return new InvalidRequestError(told.message, told.fields);
    case 'PERMISSION_DENIED':
    case 'UNAUTHENTICATED':
    case 'UNIMPLEMENTED':
      return new NotPermittedError(told.code, told.message, told.reason);
  }
  return new RefusedError(told.code, told.message, told.reason, told.metadata);
}
