// Each verb once: how its request is made, and what its answer or its failure means. The clients only carry out.

import { randomBytes } from 'node:crypto';
import type { DescMessage, DescMethodUnary, Message } from '@bufbuild/protobuf';
import { type Failure, InvalidRequestError, SessionEndedError, SessionUnknownError, SidecarError, SidecarUnreachableError } from './errors.js';
import {
  type BatchTouchResponse, type CheckResponse, CreateResponseSchema, EndResponseSchema, ExtendResponseSchema, HoldResponseSchema, ReleaseResponseSchema,
  RotateResponseSchema, SessionService, TouchRequestSchema, type TouchResponse,
} from './proto/sessionsidecar/v1/session_service_pb.js';
import type {
  Answer, Created, CreateOptions, EndAnswer, Ended, EndOptions, Extended, ExtendOptions, Held, HoldOptions, ItemError, Milliseconds, Released, Rotated,
  RotateOptions, SessionName, Touch, TouchAnswer, TouchOptions, Unknown, Unreachable,
} from './words.js';
import * as wire from './wire.js';

/** What holds for all calls of a client. */
export interface Settings {
  readonly tenant: string;
  /** What Unreachable answers are to say. */
  readonly allowed: boolean;
  readonly deadline: Milliseconds;
}

/** One call: what to send, and what comes of it. `again`: whether it may be made twice without anybody noticing. */
export interface Call<Result> {
  readonly method: DescMethodUnary;
  readonly request: Message;
  readonly answered: (message: any) => Result;
  readonly failed: (told: Failure) => Result;
  readonly again: boolean;
}

/** A command: it fails with an error. */
export const command = <Result>(method: DescMethodUnary, given: object, answered: (message: any) => Result, again = true): Call<Result> => ({
  method, request: wire.message(method.input, given), answered, failed: thrown, again,
});

/** An answer that is the message itself. */
export const as = <Result>(desc: DescMessage) => (message: object): Result => wire.plain(desc, message);

export function thrown(told: Failure): never {
  const answer = wire.failedAnswer(told, false);
  if (answer instanceof SidecarError) throw answer;
  switch (answer.kind) {
    case 'ended': throw new SessionEndedError(answer);
    case 'unknown': throw new SessionUnknownError(answer);
    case 'unreachable': throw new SidecarUnreachableError(answer);
  }
}

const answer = (settings: Settings) => (told: Failure): Ended | Unknown | Unreachable => wire.orThrow(wire.failedAnswer(told, settings.allowed));
const same = (settings: Settings, count: number) => (told: Failure) => Array(count).fill(answer(settings)(told));
const requestId = (given: string | undefined) => given ?? randomBytes(18).toString('base64url');

/** An id of the application's own, or none. An empty one is a mistake, and does not mean "make one". */
function ownId(given: string | undefined, name: string) {
  if (given === '') throw new InvalidRequestError(`${name} is empty: leave it out, and the sidecar makes one`, [name]);
  return given;
}

const method = SessionService.method;

export const createSession = ({ tenant }: Settings, options: CreateOptions = {}): Call<Created> =>
  command(method.create, { ...options, tenant, sessionId: ownId(options.sessionId, 'session_id'), requestId: requestId(options.requestId) }, as(CreateResponseSchema));

const touchRequest = ({ tenant }: Settings, { sessionId, ...options }: Touch) => wire.message(TouchRequestSchema, { ...options, tenant, sessionId });

export const touch = (settings: Settings, sessionId: string, options: TouchOptions = {}): Call<TouchAnswer> => ({
  method: method.touch, request: touchRequest(settings, { ...options, sessionId }), again: true, failed: answer(settings),
  answered: (message: TouchResponse) => wire.touched(message),
});

export function touchMany(settings: Settings, touches: Iterable<Touch>): Call<(TouchAnswer | ItemError)[]> {
  const made = [...touches].map((each) => touchRequest(settings, each));
  return {
    method: method.batchTouch, request: wire.message(method.batchTouch.input, { touches: made }), again: true, failed: same(settings, made.length),
    answered: ({ outcomes }: BatchTouchResponse) => outcomes.map((each) => wire.touchOutcome(each, settings.allowed)),
  };
}

export function check(settings: Settings, name: SessionName): Call<Answer> {
  const { name: named } = wire.sessionName(name);
  return {
    method: method.check, request: wire.message(method.check.input, { tenant: settings.tenant, [named.case!]: named.value }), again: true, failed: answer(settings),
    answered: ({ session }: CheckResponse) => {
      const whole = wire.session(session!);
      return wire.stateAnswer(whole.status, whole);
    },
  };
}

export function checkMany(settings: Settings, names: Iterable<SessionName>): Call<(Answer | ItemError)[]> {
  const sessions = [...names];
  if (sessions.length === 0) throw new InvalidRequestError('sessions is empty: name 1 to 100', ['sessions']);
  return {
    method: method.check, request: wire.message(method.check.input, { tenant: settings.tenant, sessions }), again: true, failed: same(settings, sessions.length),
    answered: ({ outcomes }: CheckResponse) => outcomes.map((each) => wire.checkOutcome(each, settings.allowed)),
  };
}

export const extend = ({ tenant }: Settings, sessionId: string, options: ExtendOptions = {}): Call<Extended> =>
  command(method.extend, { ...options, tenant, sessionId, requestId: requestId(options.requestId) }, as(ExtendResponseSchema));

export const hold = ({ tenant }: Settings, sessionId: string, holdId: string, { kind = 'WORK', ...options }: HoldOptions): Call<Held> =>
  command(method.hold, { ...options, kind, tenant, sessionId, holdId }, as(HoldResponseSchema));

export const release = ({ tenant }: Settings, sessionId: string, holdId: string): Call<Released> =>
  command(method.release, { tenant, sessionId, holdId }, as(ReleaseResponseSchema), false);

export const rotate = ({ tenant }: Settings, sessionId: string, options: RotateOptions = {}): Call<Rotated> =>
  command(
    method.rotate,
    { ...options, tenant, sessionId, newSessionId: ownId(options.newSessionId, 'new_session_id'), requestId: requestId(options.requestId) },
    as(RotateResponseSchema),
  );

export const end = ({ tenant }: Settings, sessionId: string, options: EndOptions = {}): Call<EndAnswer> =>
  command(method.end, { ...options, tenant, sessionId, requestId: requestId(options.requestId) }, as(EndResponseSchema));
