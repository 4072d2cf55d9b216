// Policies as the sidecar's policy file has them, and the rules that decide which touches count.

import type { Hints, Milliseconds } from '../words.js';

/** A duration: milliseconds, or a text such as "15m" as in a policy file. */
export type Span = Milliseconds | string;

/** The keys of a rule. A touch must meet all conditions that are set. */
export interface RuleKeys {
  name: string;
  verdict: 'count' | 'ignore';
  kind?: 'user' | 'background' | 'unspecified';
  host?: string | readonly string[];
  method?: string | readonly string[];
  path?: string | readonly string[];
  sec_fetch_user?: string | readonly string[];
  sec_fetch_mode?: string | readonly string[];
  sec_fetch_dest?: string | readonly string[];
  sec_purpose?: string | readonly string[];
  visibility?: 'visible' | 'hidden';
}

/** The keys of a policy, as in a policy file: `docs/options.md` of session-sidecar explains them. What is not given is as in the policy
 * that a new user meets. */
export interface PolicyKeys {
  preset?: string;
  revision?: number;
  idle_timeout?: Span;
  absolute_timeout?: Span;
  warn_before?: readonly Span[];
  absolute_warn_before?: readonly Span[];
  unmatched?: 'count' | 'ignore';
  max_extensions?: number;
  tombstone_ttl?: Span;
  min_id_length?: number;
  work_hold?: 'on' | 'off' | { max_ttl?: Span; budget?: Span; max_live?: number };
  presence?: 'on' | 'off' | { leave_grace?: Span; lost_grace?: Span; max_ttl?: Span; max_live?: number };
  max_sessions_per_subject?: number;
  at_subject_cap?: 'refuse' | 'end-oldest';
  passive?: boolean;
  at_most?: boolean;
  enforce?: boolean;
  rules?: readonly RuleKeys[];
}

const POLICY_KEYS = [
  'preset', 'revision', 'idle_timeout', 'absolute_timeout', 'warn_before', 'absolute_warn_before', 'unmatched', 'max_extensions', 'tombstone_ttl',
  'min_id_length', 'work_hold', 'presence', 'max_sessions_per_subject', 'at_subject_cap', 'passive', 'at_most', 'enforce', 'rules',
] as const satisfies readonly (keyof PolicyKeys)[];

// Longer than any absolute timeout: the idle timeout of a session that inactivity does not end.
export const NEVER = 36_500 * 86_400_000;
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** What holds of one kind may do. */
export interface HoldLimits {
  readonly maxTtl: Milliseconds;
  readonly maxLive: number;
}

/** What a policy says to one session. */
export interface Limits {
  readonly policy: string;
  readonly revision: number;
  readonly idleTimeout: Milliseconds;
  readonly absoluteTimeout: Milliseconds;
  readonly points: Readonly<Record<'IDLE' | 'ABSOLUTE', readonly Milliseconds[]>>;
  readonly unmatchedCounts: boolean;
  readonly rules: readonly Rule[];
  readonly maxExtensions: number | undefined;
  readonly tombstoneTtl: Milliseconds;
  readonly work: HoldLimits;
  readonly budget: Milliseconds;
  readonly presence: HoldLimits | undefined;
  readonly leaveGrace: Milliseconds;
  readonly lostGrace: Milliseconds;
  readonly passive: boolean;
  readonly atMost: boolean;
  readonly enforced: boolean;
  readonly minIdLength: number;
  readonly maxSessionsPerSubject: number | undefined;
  readonly endsOldest: boolean;
  readonly own: { readonly idleTimeout?: Milliseconds | undefined; readonly absoluteTimeout?: Milliseconds | undefined };
}

/** Whether a touch counts, and the rule that decided. */
export interface Verdict {
  readonly rule: string;
  readonly counts: boolean;
  /** Whether it is surely a person's: declared, or known by a rule. Such activity renews the budget of WORK. */
  readonly user: boolean;
}

/** These limits with stricter timeouts for one session. The warning points stay, as far as they fit. */
export function stricter(limits: Limits, own: Limits['own']): Limits {
  if (own.idleTimeout === undefined && own.absoluteTimeout === undefined) return limits;
  const idleTimeout = Math.min(limits.idleTimeout, own.idleTimeout ?? NEVER);
  const absoluteTimeout = Math.min(limits.absoluteTimeout, own.absoluteTimeout ?? NEVER);
  const points = { IDLE: fitting(limits.points.IDLE, idleTimeout), ABSOLUTE: fitting(limits.points.ABSOLUTE, absoluteTimeout) };
  return { ...limits, idleTimeout, absoluteTimeout, points, own };
}

/** Whether a touch counts. BACKGROUND never does; USER does, unless an own rule about USER says otherwise. What declares nothing goes
 * through the own rules; if there are none and hints came, the built-in ones; then it is `unmatched`. */
export function judge(limits: Limits, activity: string | undefined, hints: Hints | undefined, reportsInput: boolean): Verdict {
  const verdict = (rule: string, counts: boolean): Verdict => ({ rule, counts, user: counts && rule !== 'unmatched' });
  const own = limits.rules.find((rule) => rule.kind === (activity ?? 'UNSPECIFIED') && admits(rule, hints));
  if (own) return verdict(own.name, own.counts && activity !== 'BACKGROUND');
  if (activity === 'USER') return verdict('declared-user', true);
  if (activity === 'BACKGROUND') return verdict('declared-background', false);
  const known = hints && limits.rules.length === 0 ? builtIn(hints, reportsInput) : undefined;
  return known ? verdict(...known) : verdict('unmatched', limits.unmatchedCounts);
}

// ---- Rules ----

interface Rule {
  readonly name: string;
  readonly counts: boolean;
  readonly kind: string;
  readonly visibility: string | undefined;
  readonly words: readonly (readonly [hint: keyof Hints, wanted: readonly string[]])[];
  readonly host: RegExp | undefined;
  readonly path: RegExp | undefined;
}

const RULE_WORDS = { method: 'method', sec_fetch_user: 'secFetchUser', sec_fetch_mode: 'secFetchMode', sec_fetch_dest: 'secFetchDest', sec_purpose: 'secPurpose' } as const;

/** Whether a touch of the kind that a rule is about meets it. What is not known of a request meets no condition. */
function admits({ visibility, words, host, path: wanted }: Rule, hints: Hints | undefined): boolean {
  if (!hints) return visibility === undefined && words.length === 0 && !host && !wanted;
  const path = (hints.path ?? '').split('?', 1)[0]!;
  return (
    (visibility === undefined || visibility === hints.pageVisibility) &&
    words.every(([hint, among]) => isAmong(hint, String(hints[hint] ?? ''), among)) &&
    (!host || (!!hints.host && host.test(hints.host))) &&
    (!wanted || (path !== '' && wanted.test(path)))
  );
}

function isAmong(hint: keyof Hints, value: string, wanted: readonly string[]): boolean {
  const said = new Set([value.toLowerCase(), ...(hint === 'secPurpose' ? purposes(value) : [])]);
  return value !== '' && wanted.some((word) => said.has(word.toLowerCase()));
}

const purposes = (value: string) => value.toLowerCase().split(/[;, ]/);

function builtIn({ secPurpose = '', pageVisibility, secFetchMode = '', secFetchUser, secFetchDest = '', inputReport }: Hints, reportsInput: boolean): [string, boolean] | undefined {
  if (purposes(secPurpose).some((each) => each === 'prefetch' || each === 'prerender')) return ['prefetch', false];
  if (pageVisibility === 'HIDDEN') return ['hidden-page', false];
  if (secFetchMode.toLowerCase() === 'navigate' && secFetchUser === '?1') return ['user-navigation', true];
  // The report itself is made by a script too, and is what the others are ignored for.
  if (secFetchDest.toLowerCase() === 'empty' && !inputReport && reportsInput) return ['script-request', false];
  return undefined;
}

const GLOB = /(?<through>(?<![^/])\*\*\/)|(?<below>(?<=\/)\*\*$|^\*\*$)|(?<stars>\*+)|(?<any>\?)|\[(?<no>[!^])?(?<set>\]?[^\]]*)\]|\\(?<plain>.)|(?<brace>[{},])|(?<letter>.)/gs;

/** Globs as the sidecar has them: `*` and `?` stay within a segment between slashes, two stars as a whole segment cross them, `{a,b}` is
 * either. */
export function glob(texts: readonly string[], flags = ''): RegExp | undefined {
  return texts.length ? new RegExp(`^(?:${texts.map(translated).join('|')})$`, flags) : undefined;
}

function translated(text: string): string {
  let depth = 0;
  const pattern = text.replaceAll(GLOB, (whole, ...rest) => {
    const { through, below, stars, any, no, set, plain, brace } = rest.at(-1);
    if (through) return '(?:.*/)?';
    if (below) return '.*';
    if (stars) return '[^/]*';
    if (any) return '[^/]';
    if (set !== undefined) return `(?!/)[${no ? '^' : ''}${set.replaceAll(/[\\[\]^]/g, '\\$&')}]`;
    if (brace === '{') return depth++, '(?:';
    if (brace === '}' && depth) return depth--, ')';
    if (brace === ',' && depth) return '|';
    return (plain ?? whole).replaceAll(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');
  });
  return `(?:${pattern})`;
}

// ---- Reading ----

const UNITS: Record<string, Milliseconds> = {};
for (const [words, length] of Object.entries({
  'nsec ns': 1e-6, 'usec us': 1e-3, 'msec ms': 1, 'seconds second secs sec s': 1000, 'minutes minute mins min m': MINUTE, 'hours hour hrs hr h': HOUR,
  'days day d': 24 * HOUR, 'weeks week wks wk w': 168 * HOUR, 'months month M': 30.44 * 24 * HOUR, 'years year yrs yr y': 365.25 * 24 * HOUR,
})) for (const word of words.split(' ')) UNITS[word] = length;

const PRESETS: Record<string, PolicyKeys> = {
  'nist-aal1': { idle_timeout: '1d', absolute_timeout: '30d' },
  'nist-aal2': { idle_timeout: '1h', absolute_timeout: '1d', unmatched: 'ignore' },
  'nist-aal3': { unmatched: 'ignore' },
  'pci-dss-8.2.8': { unmatched: 'ignore' },
  'owasp-high-value': { idle_timeout: '5m', absolute_timeout: '4h', unmatched: 'ignore', max_sessions_per_subject: 1, at_subject_cap: 'end-oldest' },
};

/** Policies by their names, from their keys. Throws TypeError for what is no policy. */
export function read(policies: Readonly<Record<string, PolicyKeys>>): Map<string, Limits> {
  return new Map(Object.entries(policies).map(([name, keys]) => [name, limitsOf(name, keys)]));
}

function limitsOf(name: string, given: PolicyKeys): Limits {
  const wrong = (problem: string) => new TypeError(`policy ${name}: ${problem}`);
  const stranger = Object.keys(given).find((key) => !(POLICY_KEYS as readonly string[]).includes(key));
  if (stranger) throw wrong(`there is no key ${stranger}; there are: ${POLICY_KEYS.join(', ')}`);
  const { preset, passive = false } = given;
  if (preset !== undefined && !PRESETS[preset]) throw wrong(`there is no preset ${preset}; there are: ${Object.keys(PRESETS).join(', ')}`);
  const keys: PolicyKeys = { ...(preset && { ...PRESETS[preset], work_hold: 'off', at_most: true, min_id_length: 22 }), ...given };
  if (passive && (given.idle_timeout !== undefined || given.warn_before?.length)) throw wrong('idle_timeout and warn_before cannot be set with passive: inactivity does not end it');
  const absoluteTimeout = span('absolute_timeout', keys.absolute_timeout ?? '12h');
  const idleTimeout = passive ? NEVER : span('idle_timeout', keys.idle_timeout ?? '15m');
  if (!passive && idleTimeout > absoluteTimeout) throw wrong(`idle_timeout must be at most absolute_timeout, ${absoluteTimeout} ms`);
  const points = (key: string, leads: readonly Span[], timeout: Milliseconds) => fitting(leads.map((lead) => span(key, lead)), timeout);
  const work = table('work_hold', keys.work_hold ?? 'on', { max_ttl: '5m', budget: '2h', max_live: 8 });
  const presence = table('presence', keys.presence ?? 'off', { leave_grace: '30s', lost_grace: Math.min(idleTimeout, absoluteTimeout), max_ttl: '10m', max_live: 64 });
  return {
    policy: name,
    revision: keys.revision ?? 0,
    idleTimeout,
    absoluteTimeout,
    points: {
      IDLE: points('warn_before', passive ? [] : (keys.warn_before ?? ['2m', '60s']), idleTimeout),
      ABSOLUTE: points('absolute_warn_before', keys.absolute_warn_before ?? ['10m', '2m'], absoluteTimeout),
    },
    unmatchedCounts: (keys.unmatched ?? 'count') === 'count',
    rules: (keys.rules ?? []).map(ruleOf),
    maxExtensions: keys.max_extensions,
    tombstoneTtl: span('tombstone_ttl', keys.tombstone_ttl ?? '24h'),
    work: work ? { maxTtl: work['max_ttl']!, maxLive: work['max_live']! } : { maxTtl: 5 * MINUTE, maxLive: 0 },
    budget: work?.['budget'] ?? 2 * HOUR,
    presence: presence && { maxTtl: presence['max_ttl']!, maxLive: presence['max_live']! },
    leaveGrace: presence?.['leave_grace'] ?? MINUTE / 2,
    lostGrace: presence?.['lost_grace'] ?? 15 * MINUTE,
    passive,
    atMost: keys.at_most ?? false,
    enforced: keys.enforce ?? true,
    minIdLength: keys.min_id_length ?? 16,
    maxSessionsPerSubject: keys.max_sessions_per_subject,
    endsOldest: keys.at_subject_cap === 'end-oldest',
    own: {},
  };
}

/** Leads as they are in force: the longest first, none over half of the timeout, each once. */
const fitting = (leads: readonly Milliseconds[], timeout: Milliseconds) => [...new Set(leads.map((lead) => Math.min(lead, timeout / 2)))].sort((one, other) => other - one);

/** Milliseconds of a duration. */
export function span(key: string, value: unknown): Milliseconds {
  if (typeof value === 'number' && value >= 0) return value;
  const parts = typeof value === 'string' ? [...value.matchAll(/(\d+)\s*([A-Za-z]+)\s*/g)] : [];
  const isWhole = parts.length > 0 && parts.map(([part]) => part).join('') === value;
  if (!isWhole || parts.some(([, , unit]) => !UNITS[unit!])) throw new TypeError(`${key} must be a number of milliseconds, or a duration like "90s" or "15m"`);
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * UNITS[unit!]!, 0);
}

/** A switch that may be a table; undefined if it is off. */
function table(key: string, value: unknown, usual: Record<string, Span>): Record<string, number> | undefined {
  if (value === 'off') return undefined;
  const given = value === 'on' ? {} : value;
  if (typeof given !== 'object' || given === null || Object.keys(given).some((name) => !(name in usual))) {
    throw new TypeError(`${key} must be "on", "off", or a table with ${Object.keys(usual).join(', ')}`);
  }
  return Object.fromEntries(Object.entries({ ...usual, ...given }).map(([name, each]) => [name, name === 'max_live' ? Number(each) : span(`${key}.${name}`, each)]));
}

const RULE_KEYS = ['name', 'verdict', 'kind', 'host', ...Object.keys(RULE_WORDS), 'path', 'visibility'];

function ruleOf(given: RuleKeys): Rule {
  if (!given.name || !given.verdict || Object.keys(given).some((key) => !RULE_KEYS.includes(key))) throw new TypeError(`a rule has a name, a verdict and may have ${RULE_KEYS.slice(2).join(', ')}`);
  const texts = (value: string | readonly string[] | undefined) => (value === undefined ? [] : [value].flat());
  return {
    name: given.name,
    counts: given.verdict === 'count',
    kind: (given.kind ?? 'unspecified').toUpperCase(),
    visibility: given.visibility?.toUpperCase(),
    words: (Object.keys(RULE_WORDS) as (keyof typeof RULE_WORDS)[]).filter((key) => given[key] !== undefined).map((key) => [RULE_WORDS[key], texts(given[key])] as const),
    host: glob(texts(given.host), 'i'),
    path: glob(texts(given.path)),
  };
}

