// What comes from outside, bounded. A refusal names the field and the limit, never the value: it may be a session id.

import { createHash } from 'node:crypto';
import { failure } from '../errors.js';
import { Failed } from '../transport.js';
import type { Hints, Milliseconds } from '../words.js';
import type { Request } from './model.js';

const LONGEST = 3653 * 86_400_000;

/** A field that is out of bounds. */
export const invalid = (field: string, problem: string) => new Failed(failure('INVALID_ARGUMENT', `${field}: ${problem}`, '', { fields: [field] }));

/** Text of visible ASCII. */
export function visible(field: string, text: string, shortest: number, longest: number): string {
  const size = Buffer.byteLength(text);
  if (size < shortest || size > longest) throw invalid(field, `is ${size} bytes long; ${shortest} to ${longest} are allowed`);
  if (!/^[!-~]*$/.test(text)) throw invalid(field, 'has a byte that is not visible ASCII (0x21 to 0x7e)');
  return text;
}

/** An id. How short it may be is the policy's affair. */
export function sessionId(field: string, text: string): string {
  if (!text) throw invalid(field, "is required: the session's id, 16 to 256 bytes of visible ASCII");
  return visible(field, text, 1, 256);
}

/** Whether it could be a ref: its last character has four bits of the sixteen bytes, and two that must be 0. */
export const isRef = (text: string) => /^[\w-]{21}[AQgw]$/.test(text);

export function sessionRef(field: string, text: string): string {
  if (!isRef(text)) throw invalid(field, 'is not a session_ref: it must be 22 characters of base64url');
  return text;
}

/** Text for people: bounded, without control characters. */
export function text(field: string, given: string, longest: number): string {
  const size = Buffer.byteLength(given);
  if (size > longest) throw invalid(field, `is ${size} bytes long; at most ${longest} are allowed`);
  if (/[\u0000-\u001f\u007f-\u009f]/.test(given)) throw invalid(field, 'has a control character; remove it');
  return given;
}

/** Up to eight labels. */
export function labels(field: string, given: Readonly<Record<string, string>>): Record<string, string> {
  const all = Object.entries(given).sort(([one], [other]) => (one < other ? -1 : 1));
  if (all.length > 8) throw invalid(field, `has ${all.length} labels; at most 8 are allowed`);
  for (const [key, value] of all) {
    if (!/^[a-z0-9_./-]{1,63}$/.test(key)) throw invalid(field, 'has a key that is not 1 to 63 bytes of a-z, 0-9, `_`, `-`, `.`, `/`');
    text(`${field}.${key}`, value, 128);
  }
  return Object.fromEntries(all);
}

/** A duration of 0 or more. */
export const span = (field: string, given: Milliseconds | undefined, shortest = 0, longest = LONGEST) => {
  if (given !== undefined && !(given >= shortest && given <= longest)) throw invalid(field, `must be a duration from ${shortest} ms to ${longest} ms`);
  return given;
};

/** A duration over 0. */
export const spanOver0 = (field: string, given: Milliseconds | undefined) => {
  if (given !== undefined && given <= 0) throw invalid(field, 'must be a duration over 0');
  return span(field, given);
};

/** A word of an enum; undefined if it is not said. */
export function known<Word extends string>(field: string, word: Word | 'OTHER' | undefined): Word | undefined {
  if (word === 'OTHER') throw invalid(field, 'has a number that stands for no value');
  return word as Word | undefined;
}

/** A request id, if there is one, and all else that the request says. Only hashes are kept: what a Rotate says has an id in it. */
export function requestId(verb: string, request: object & { requestId: string }, but: readonly string[] = []): Request | undefined {
  const { requestId: key } = request;
  visible('request_id', key, 0, 128);
  const hash = (said: string) => createHash('sha256').update(said).digest('hex');
  return key ? { key: hash(key), content: hash(verb + canonical(request, ['requestId', ...but])) } : undefined;
}

/** The same text for the same content, with what is not shown. */
function canonical(value: unknown, but: readonly string[] = []): string {
  if (typeof value !== 'object' || value === null || value instanceof Date) return JSON.stringify(value) ?? '';
  const keys = Object.getOwnPropertyNames(value).filter((key) => !but.includes(key)).sort();
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonical((value as Record<string, unknown>)[key])}`).join()}}`;
}

const HINTS = {
  path: ['path', 2048], host: ['host', 255], method: ['method', 32], secFetchUser: ['sec_fetch_user', 64], secFetchMode: ['sec_fetch_mode', 64],
  secFetchDest: ['sec_fetch_dest', 64], secPurpose: ['sec_purpose', 64],
} as const;

/** What is known of the request behind a touch. */
export function hints(given: Hints): Hints {
  known('hints.page_visibility', given.pageVisibility);
  for (const [key, [field, longest]] of Object.entries(HINTS)) {
    const value = given[key as keyof typeof HINTS] ?? '';
    const size = Buffer.byteLength(value);
    if (size > longest) throw invalid(`hints.${field}`, `is ${size} bytes long; at most ${longest} are allowed`);
    if (!/^[ -~]*$/.test(value)) throw invalid(`hints.${field}`, 'has a byte that is not visible ASCII or a space (0x20 to 0x7e)');
  }
  return given;
}

export function holdId(given: string): string {
  if (!given) throw invalid('hold_id', "is required: the owner's own id of the hold, 1 to 64 bytes of visible ASCII");
  return visible('hold_id', given, 1, 64);
}

/** Some items, and not too many. */
export function within(field: string, count: number, most: number) {
  if (count < 1 || count > most) throw invalid(field, `has ${count} items; 1 to ${most} are allowed`);
}
