// Between the messages of the wire and the words of this package: once for all messages, by their descriptors.

import { create, type DescEnum, type DescField, type DescMessage, type MessageShape, ScalarType } from '@bufbuild/protobuf';
import { type Duration, DurationSchema, type Timestamp, TimestampSchema } from '@bufbuild/protobuf/wkt';
import { type Failure, failure, InvalidRequestError, SidecarError, toError, unreachable } from './errors.js';
import {
  type CheckOutcome, ItemErrorSchema, type ItemError as WireItemError, SessionEndSchema, SessionNameSchema, SessionSchema, SessionStatusSchema,
  type TouchOutcome, type TouchResponse, TouchResponseSchema, type WatchExpiryResponse, WatchExpiryResponseSchema,
} from './proto/sessionsidecar/v1/session_service_pb.js';
import type {
  Actor, Answer, End, Ended, EndReason, Event, Hints, ItemError, Live, Milliseconds, Session, SessionName, Status, Touched, TouchAnswer, Unknown, Unreachable,
} from './words.js';

// ---- From messages to words ----

/** What a message says: unset fields are absent, durations milliseconds, enums their words, fields of a oneof stand beside the others. */
export function plain<T>(desc: DescMessage, message: object): T {
  const told: Record<string, unknown> = {};
  for (const field of desc.fields) {
    const value = read(message as Record<string, any>, field);
    // An id is a secret, and is shown by nothing that shows what there is.
    if (value !== undefined) Object.defineProperty(told, field.localName, { value, enumerable: field.name !== 'session_id', configurable: true, writable: true });
  }
  return told as T;
}

function read(message: Record<string, any>, field: DescField): unknown {
  let value = message[field.oneof ? field.oneof.localName : field.localName];
  if (field.oneof) value = value.case === field.localName ? value.value : undefined;
  if (value === undefined) return undefined;
  if (field.fieldKind === 'list') return value.map((each: unknown) => one(field, each));
  if (field.fieldKind === 'map') return { ...value };
  return one(field, value);
}

function one(field: DescField, value: any): unknown {
  if (field.enum) return word(field.enum, value);
  if (!field.message) return typeof value === 'bigint' ? Number(value) : value;
  if (field.message.typeName === DurationSchema.typeName) return milliseconds(value);
  if (field.message.typeName === TimestampSchema.typeName) return date(value);
  return plain(field.message, value);
}

export const milliseconds = ({ seconds, nanos }: Duration): Milliseconds => Number(seconds) * 1000 + nanos / 1e6;
const date = ({ seconds, nanos }: Timestamp) => new Date(Number(seconds) * 1000 + Math.floor(nanos / 1e6));

/** An enum's word: none for the unspecified one, OTHER for one that is too new. */
export const word = (desc: DescEnum, number: number) => (number === 0 ? undefined : (desc.value[number]?.localName ?? 'OTHER'));

// ---- From words to messages ----

/** The message that says what is given. Neither a value nor what it came from is in an error: it may be an id. */
export function message<Desc extends DescMessage>(desc: Desc, given: object): MessageShape<Desc> {
  const made = create(desc) as Record<string, any>;
  for (const [key, value] of Object.entries(given)) {
    const field = desc.fields.find((each) => each.localName === key);
    if (!field) throw new TypeError(`there is no ${key}; there are: ${desc.fields.map((each) => each.localName).join(', ')}`);
    if (value === undefined) continue;
    const set = encoded(field, value);
    if (field.oneof) made[field.oneof.localName] = { case: field.localName, value: set };
    else made[field.localName] = set;
  }
  return made as MessageShape<Desc>;
}

function encoded(field: DescField, value: any): unknown {
  if (field.fieldKind === 'list') {
    expect(field, Array.isArray(value), 'an array', value);
    return value.map((each: unknown) => encodedOne(field, each));
  }
  if (field.fieldKind === 'map') {
    expect(field, typeof value === 'object' && value !== null, 'an object', value);
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [text(field, key), text(field, each)]));
  }
  return encodedOne(field, value);
}

function encodedOne(field: DescField, value: any): unknown {
  if (field.enum) return number(field, field.enum, value);
  if (field.message) return encodedMessage(field, field.message, value);
  const type = field.fieldKind === 'map' ? undefined : field.scalar;
  if (type === ScalarType.STRING) return text(field, value);
  if (type === ScalarType.BOOL) {
    expect(field, typeof value === 'boolean', 'a boolean', value);
    return value;
  }
  expect(field, typeof value === 'number', 'a number', value);
  if (!Number.isInteger(value) || Math.abs(value) >= 2 ** 31) throw new InvalidRequestError(`${field.name} must be an integer of 31 bits`, [field.name]);
  return type === ScalarType.UINT64 ? BigInt(value) : value;
}

function encodedMessage(field: DescField, desc: DescMessage, value: any): unknown {
  if (desc.typeName === DurationSchema.typeName) {
    expect(field, typeof value === 'number', 'a number of milliseconds', value);
    if (!Number.isFinite(value) || Math.abs(value) > 3e14) throw new InvalidRequestError(`${field.name} must be a finite number of milliseconds`, [field.name]);
    return duration(value);
  }
  if (desc.typeName === TimestampSchema.typeName) {
    expect(field, value instanceof Date, 'a Date', value);
    if (Number.isNaN(value.getTime())) throw new InvalidRequestError(`${field.name} is an invalid Date`, [field.name]);
    return timestamp(value);
  }
  if (desc.typeName === SessionNameSchema.typeName) return sessionName(value);
  expect(field, typeof value === 'object' && value !== null, 'an object', value);
  return value.$typeName ? value : message(desc, value);
}

/** Whole nanoseconds. */
export function duration(given: Milliseconds): Duration {
  const seconds = Math.trunc(given / 1000);
  const nanos = Math.round((given - seconds * 1000) * 1e6);
  const carry = Math.trunc(nanos / 1e9);
  return create(DurationSchema, { seconds: BigInt(seconds + carry), nanos: nanos - carry * 1e9 });
}

export function timestamp(given: Date): Timestamp {
  const seconds = Math.floor(given.getTime() / 1000);
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: (given.getTime() - seconds * 1000) * 1e6 });
}

function number(field: DescField, desc: DescEnum, value: unknown): number {
  expect(field, typeof value === 'string', 'a word', value);
  const found = desc.values.find((each) => each.localName === value);
  if (!found?.number) throw new InvalidRequestError(`${field.name} must be ${desc.values.slice(1).map((each) => each.localName).join(' or ')}`, [field.name]);
  return found.number;
}

function text(field: DescField, value: unknown): string {
  expect(field, typeof value === 'string', 'a string', value);
  if (!(value as string).isWellFormed()) throw new InvalidRequestError(`${field.name} is not valid Unicode: it has lone surrogates`, [field.name]);
  return value as string;
}

function expect(field: DescField, holds: boolean, what: string, value: unknown) {
  if (!holds) throw new TypeError(`${field.localName} must be ${what}, not ${value === null ? 'null' : typeof value}`);
}

/** By an id, or by a ref. */
export function sessionName(value: SessionName) {
  if (typeof value === 'string') return message(SessionNameSchema, { sessionId: value });
  if (typeof value?.sessionRef === 'string') return message(SessionNameSchema, { sessionRef: value.sessionRef });
  throw new TypeError('a session must be its id, or an object with a sessionRef');
}

// ---- What an answer means ----

export const session = (told: object): Session => plain(SessionSchema, told);
export const status = (told: object): Status => plain(SessionStatusSchema, told);
export const end = (told: object): End => plain(SessionEndSchema, told);

const NO_END: End = { actorId: '', note: '', successorRef: '' };

export function live(told: Status, whole?: Session): Live {
  const { sessionRef, expiresIn = 0, state } = told;
  return { kind: 'live', allowed: true, sessionRef, expiresIn, expiring: state === 'EXPIRING', status: told, ...(whole && { session: whole }) };
}

function ended(sessionRef: string, over: End, rest: { session?: Session; status?: Status } = {}): Ended {
  const { reason, actor, endTime, successorRef } = over;
  return { kind: 'ended', allowed: false, sessionRef, ...(reason && { reason }), ...(actor && { actor }), ...(endTime && { endTime }), successorRef, end: over, ...rest };
}

/** What a status means for a request. */
export function stateAnswer(told: Status, whole?: Session): Live | Ended | Unknown {
  const { sessionRef, mayHaveEnded, expireTime } = told;
  if (told.state === 'ACTIVE' || told.state === 'EXPIRING') return live(told, whole);
  if (told.state !== 'ENDED') return { kind: 'unknown', allowed: false, sessionRef, mayHaveEnded, status: told };
  return ended(sessionRef, whole?.end ?? { ...NO_END, ...(expireTime && { endTime: expireTime }) }, { ...(whole && { session: whole }), status: told });
}

/** The answer to a touch. */
export function touched(told: TouchResponse): Touched {
  const { status: now, ...rest } = plain<Pick<Touched, 'status' | 'counted' | 'result' | 'rule'>>(TouchResponseSchema, told);
  return { ...live(now), ...rest };
}

const spoken = <Word extends string>(desc: DescEnum, name: string | undefined) =>
  name ? ((desc.values.some((each) => each.number && each.localName === name) ? name : 'OTHER') as Word) : undefined;
const enumOf = (name: string) => SessionEndSchema.fields.find((each) => each.localName === name)!.enum!;

/** What a failure means for a request; an error if it means nothing for it. */
export function failedAnswer(told: Failure, allowed: boolean): Ended | Unknown | Unreachable | ItemError {
  const { session_ref: sessionRef = '', reason, actor, end_time: at, actor_id: actorId = '', note = '', successor_ref: successorRef = '', may_have_ended: may } = told.metadata;
  if (told.reason === 'SESSION_ENDED') {
    const [why, who] = [spoken<EndReason>(enumOf('reason'), reason), spoken<Actor>(enumOf('actor'), actor)];
    return ended(sessionRef, { ...(why && { reason: why }), ...(who && { actor: who }), ...(at && { endTime: new Date(at) }), actorId, note, successorRef });
  }
  if (told.reason === 'SESSION_UNKNOWN') return { kind: 'unknown', allowed: false, sessionRef, mayHaveEnded: may === 'true' };
  return unreachable(told, allowed) ?? toError(told);
}

const CODES: Record<number, string> = { 3: 'INVALID_ARGUMENT', 5: 'NOT_FOUND', 7: 'PERMISSION_DENIED', 8: 'RESOURCE_EXHAUSTED', 9: 'FAILED_PRECONDITION', 14: 'UNAVAILABLE' };

function itemFailed(error: WireItemError, allowed: boolean): Ended | Unknown | Unreachable | ItemError {
  const told = plain<{ code: number; message: string; reason: string; sessionRef: string; end?: End }>(ItemErrorSchema, error);
  if (told.reason === 'SESSION_ENDED') return ended(told.sessionRef, told.end ?? NO_END);
  const metadata: Record<string, string> = told.sessionRef ? { session_ref: told.sessionRef } : {};
  return failedAnswer(failure(CODES[told.code] ?? String(told.code), told.message, told.reason, { metadata }), allowed);
}

/** One touch of a batch. */
export const touchOutcome = ({ outcome }: TouchOutcome, allowed: boolean): TouchAnswer | ItemError =>
  outcome.case === 'touch' ? touched(outcome.value) : itemFailed(outcome.value!, allowed);

/** One session of many. */
export const checkOutcome = ({ outcome }: CheckOutcome, allowed: boolean): Answer | ItemError =>
  outcome.case === 'status' ? stateAnswer(status(outcome.value)) : itemFailed(outcome.value!, allowed);

/** What a message of the stream tells; undefined for a heartbeat, and for what is too new. */
export function event(told: WatchExpiryResponse): Event | undefined {
  const kind = told.message.case;
  if (!kind || kind === 'heartbeat') return undefined;
  const { emitTime, [kind]: body } = plain<Record<string, any>>(WatchExpiryResponseSchema, told);
  const certain = kind === 'warning' ? { limit: 'OTHER', point: 0, expiresIn: 0 } : kind === 'cleared' ? { limit: 'OTHER', cause: 'OTHER', expiresIn: 0 } : {};
  return { kind, emitTime, ...certain, ...body } as Event;
}

// ---- Hints ----

/** Hints of an HTTP request, with the raw (percent-encoded) path. What the sidecar would refuse is left out or cut, for it is
 * whatever somebody sent. */
export function hintsOf(method: string, path: string, headers: Readonly<Record<string, string | string[] | undefined>>, more: Pick<Hints, 'inputReport' | 'pageVisibility'> = {}): Hints {
  const said = (value: unknown, longest = 64) => (typeof value === 'string' && value.length <= longest && /^[ -~]*$/.test(value) ? value : '');
  return {
    host: said(String(headers['host'] ?? '').replace(/:\d*$/, ''), 255),
    method: said(method, 32),
    path: said(path.split('?', 1)[0]!.slice(0, 2048), 2048),
    secFetchUser: said(headers['sec-fetch-user']),
    secFetchMode: said(headers['sec-fetch-mode']),
    secFetchDest: said(headers['sec-fetch-dest']),
    secPurpose: said(headers['sec-purpose']),
    ...more,
  };
}

/** Throws what an answer is, if it is an error. */
export function orThrow<T>(answer: T): Exclude<T, SidecarError> {
  if (answer instanceof SidecarError) throw answer;
  return answer as Exclude<T, SidecarError>;
}
