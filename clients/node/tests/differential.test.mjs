// The fake and the program, side by side: random histories of calls, on which both must say the same, to the version and the event.
//
// The program's clock goes on by itself while it is asked. So every call of the fake is made at the time at which the program says that it
// answered; and calls are made at whole even seconds, a few milliseconds late, while nothing that a policy below brings is due then: not
// the idle end (a half second), not the lapse of a hold (three tenths), nor what follows from these.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidRequestError, NotPermittedError, RefusedError, SessionEndedError, SessionUnknownError, SidecarAdmin, SidecarError } from 'session-sidecar';
import { FakeSidecar } from 'session-sidecar/fake';
import { advance } from 'session-sidecar/testing';
import { parse } from 'smol-toml';
import { connect, eventually, NEVER_ISSUED, PATIENCE, serve } from './support.mjs';

const USUAL = `
idle_timeout = "20s 500ms"
warn_before = ["8s", "3s"]
absolute_timeout = "3m 500ms"
absolute_warn_before = ["20s", "5s"]
tombstone_ttl = "90s 400ms"
`;
const POLICIES = `
[policy.default]
${USUAL}
max_extensions = 2
work_hold = { max_ttl = "12s 300ms", budget = "14s 300ms", max_live = 2 }
presence = { leave_grace = "4s 500ms", lost_grace = "3s 500ms", max_ttl = "11s 300ms", max_live = 2 }

[policy.desk]
${USUAL}
max_sessions_per_subject = 2
at_subject_cap = "end-oldest"
at_most = true
presence = { leave_grace = "6s 500ms", max_ttl = "11s 300ms" }
work_hold = { max_ttl = "12s 300ms", budget = "6s 300ms" }

[policy.ruled]
${USUAL}
unmatched = "ignore"
max_sessions_per_subject = 2
work_hold = "off"
rules = [
    { name = "previews", sec_purpose = ["preview", "Prefetch"], sec_fetch_mode = ["CORS", "no-cors"], verdict = "ignore" },
    { name = "clicks", sec_fetch_user = "?1", sec_fetch_mode = "navigate", verdict = "count" },
    { name = "polls", path = ["/api/*/poll", "/**/beat"], verdict = "ignore" },
    { name = "robots", kind = "user", host = "*.Robots.example", verdict = "ignore" },
    { name = "forms", method = ["POST", "PUT"], path = "/app/**", visibility = "visible", verdict = "count" },
    { name = "pages", sec_fetch_dest = "document", path = "/{shop,blog}/**", verdict = "count" },
]

[policy.wall]
passive = true
absolute_timeout = "70s 500ms"
tombstone_ttl = "90s 400ms"

[policy.trial]
${USUAL}
enforce = false
presence = { leave_grace = "4s 500ms", lost_grace = "9s 500ms" }
work_hold = { max_ttl = "12s 300ms", budget = "20s 300ms", max_live = 2 }
`;
const NAMES = ['default', 'default', 'default', 'desk', 'desk', 'desk', 'ruled', 'ruled', 'wall', 'trial', 'trial', 'none'];
const WEIGHTS = { create: 8, touch: 24, touchMany: 3, check: 12, checkMany: 3, extend: 10, hold: 14, release: 8, rotate: 5, end: 3, listSessions: 2, endSessions: 1 };
const VERBS = Object.entries(WEIGHTS).flatMap(([verb, weight]) => Array(weight).fill(verb));
// How much the program may be late, and the calls' times beside even seconds, in ms.
const TOLERANCE = 100;
const CALLS = 1500;
const SEEDS = [1, 2, 3, 4];
const DURATIONS = new Set(['expiresIn', 'grantedDuration', 'grantedTtl', 'idleTimeout', 'absoluteTimeout', 'point']);

const THEMES = [
  { verbs: ['hold', 'hold', 'hold', 'hold', 'check'], waits: [4, 6], policy: 'default' },
  { verbs: ['hold', 'hold', 'hold', 'hold', 'release'], waits: [6], policy: 'desk' },
  { verbs: ['touch', 'touch', 'extend'], waits: [2, 6], policy: 'wall' },
  { verbs: ['extend', 'extend', 'extend', 'check'], waits: [0, 2], policy: 'default' },
  { verbs: ['rotate', 'rotate', 'end', 'create'], waits: [0] },
  { verbs: ['create', 'create', 'check'], waits: [0, 2], policy: 'ruled', subject: 'ada' },
];

/** Repeatable chance (mulberry32). */
function chance(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A sidecar and a fake, and what their sessions are called here. */
class Both {
  ids = [[NEVER_ISSUED, NEVER_ISSUED]];
  meaning = new Map();
  story = [];
  seen = new Map();

  static async begin(sidecar, desk, seed) {
    const both = new Both();
    const fake = new FakeSidecar({ policies: parse(POLICIES).policy });
    const admin = [desk, fake.admin()];
    Object.assign(both, { sidecar, fake, random: chance(seed), clients: { listSessions: admin, endSessions: admin } });
    both.now = both.start = +(await advance(sidecar, 1));
    fake.server.now = both.now;
    return both;
  }

  // ---- Time ----

  /** Goes to an even second, and as many more. */
  async wait(seconds) {
    const now = await advance(this.sidecar, 0.001);
    const late = (now - this.start) % 2_000;
    const rest = seconds * 1_000 + (late > TOLERANCE / 2 ? 2_000 - late : 0);
    await this.synchronise(+(rest ? await advance(this.sidecar, rest) : now));
  }

  async synchronise(now) {
    if (now <= this.now) return;
    this.now = now;
    await this.fake.advance(now - this.fake.server.now);
  }

  // ---- What is asked ----

  whole = (below) => Math.floor(this.random() * below);
  either = (...choices) => choices[this.whole(choices.length)];
  perhaps = (likely, value) => (this.random() < likely ? value() : undefined);

  /** For a while the calls are about one session or subject, and of few kinds: else hardly any limit is ever reached. */
  async turn() {
    this.focus = this.random() < 0.7 ? this.ids.at(-1) : this.either(...this.ids.slice(-8));
    this.subject = this.either('', 'ada', 'bob');
    this.policy = this.either(...NAMES);
    this.verbs = this.random() < 0.6 ? [this.either(...VERBS), this.either(...VERBS), this.either(...VERBS)] : VERBS;
    this.waits = this.either([0], [0, 0, 2, 4], [0, 0, 0, 2, 6, 8, 22]);
    // What chance hardly ever leads to: work for as long as it may, staying too often, ids that are taken, too many sessions of a person.
    if (this.random() < 0.4) Object.assign(this, this.either(...THEMES));
    if (this.random() < 0.7) await this.ask('create', this.arguments('create'));
  }

  /** One call, some time after the one before; now and then the same again. */
  async call() {
    await this.wait(this.either(...this.waits));
    if (!(this.last && this.random() < 0.1)) {
      const verb = this.either(...this.verbs);
      this.last = [verb, this.arguments(verb)];
    }
    await this.ask(...this.last);
  }

  /** A session by its id at both: mostly that which the calls are about for a while, or one of the latest. */
  name() {
    const drawn = this.random();
    return drawn < 0.7 ? this.focus : this.either(...this.ids.slice(drawn < 0.95 ? -4 : 0));
  }

  // Remembered for ten minutes: never asked for again just then.
  requestId = () => this.perhaps(0.4, () => `request-${Math.floor((this.now - this.start) / 400_000)}-${this.whole(6)}`);

  /** An id of the application's own, for both: a fresh one, or one that stands for something. */
  ownId(likely) {
    if (this.random() > likely) return [undefined, undefined];
    const fresh = `own-id-${String(this.whole(1e9)).padStart(12, '0')}`;
    return this.either([fresh, fresh], [fresh, fresh], this.name(), this.either(...this.ids.slice(-20)));
  }

  hints = () => ({
    host: this.either('', 'shop.example', 'one.robots.EXAMPLE', 'a.b.robots.example'),
    method: this.either('', 'GET', 'POST', 'put'),
    path: this.either('', '/api/shop/poll?x=1', '/api/a/b/poll', '/app/cart', '/beat', '/a/b/beat', '/shop/', '/blog/a/b', '/shop'),
    secFetchUser: this.either('', '?1'),
    secFetchMode: this.either('', 'navigate', 'cors'),
    secFetchDest: this.either('', 'document', 'empty'),
    secPurpose: this.either('', '', 'prefetch;prerender', 'Other, PREFETCH'),
    pageVisibility: this.either(undefined, 'VISIBLE', 'HIDDEN'),
    inputReport: this.random() < 0.2,
  });

  touchOptions = () => ({
    activity: this.either(undefined, 'USER', 'USER', 'BACKGROUND'),
    idleFor: this.perhaps(0.2, () => this.whole(40) * 1_000),
    hints: this.perhaps(0.4, this.hints),
  });

  /** The arguments of a call at both. A ref is named by the id that it is of, until it is asked for. */
  arguments(verb) {
    const one = this.name();
    const both = (make) => [make(0), make(1)];
    const seconds = (...choices) => Math.round(this.either(...choices) * 1_000);
    switch (verb) {
      case 'create': {
        const own = this.ownId(0.3);
        const options = {
          subject: this.subject, policy: this.policy,
          labels: this.perhaps(0.3, () => ({ app: this.either('shop', 'blog') })),
          idleTimeout: this.perhaps(0.2, () => seconds(17.5, 19.5, 21.5)),
          absoluteTimeout: this.perhaps(0.2, () => seconds(60.5, 100.5, 300.5)),
          authenticatedAgo: this.perhaps(0.3, () => seconds(0, 30, 150, 160, 190)),
          idleFor: this.perhaps(0.2, () => seconds(0, 5, 13, 18, 22)),
          authenticationLevel: this.either('', 'aal2'), requestId: this.requestId(),
        };
        return both((side) => [{ ...options, sessionId: own[side] }]);
      }
      case 'touch': {
        const options = this.touchOptions();
        return both((side) => [one[side], options]);
      }
      case 'touchMany': {
        const touches = Array.from({ length: 1 + this.whole(5) }, () => [this.name(), this.touchOptions()]);
        return both((side) => [touches.map(([name, options]) => ({ sessionId: name[side], ...options }))]);
      }
      case 'check': {
        const byRef = this.random() < 0.4;
        return both((side) => [byRef ? { refOf: one[side] } : one[side]]);
      }
      case 'checkMany': {
        const names = Array.from({ length: 1 + this.whole(5) }, () => [this.name(), this.random() < 0.4]);
        return both((side) => [names.map(([name, byRef]) => (byRef ? { refOf: name[side] } : name[side]))]);
      }
      case 'extend': {
        const options = { wantedDuration: this.perhaps(0.4, () => seconds(0, 1.5, 10.5, 40.5, 400.5)), requestId: this.requestId() };
        return both((side) => [one[side], options]);
      }
      case 'hold': {
        const [holdId, options] = [this.either('a', 'b', 'c'), { ttl: seconds(2.3, 6.3, 30.3), kind: this.either('WORK', 'PRESENCE'), purpose: this.either('', 'report') }];
        return both((side) => [one[side], holdId, options]);
      }
      case 'release': {
        const holdId = this.either('a', 'b', 'c');
        return both((side) => [one[side], holdId]);
      }
      case 'rotate': {
        const own = this.ownId(0.7);
        const ago = this.perhaps(0.4, () => seconds(0, 30, 60, 190));
        const options = { subject: this.perhaps(0.2, () => this.either('ada', 'bob')), authenticatedAgo: ago, authenticationLevel: ago === undefined ? undefined : 'aal3', requestId: this.requestId() };
        return both((side) => [one[side], { ...options, newSessionId: own[side] }]);
      }
      case 'end': {
        const options = {
          reason: this.either(undefined, 'REVOKED', 'IDLE_TIMEOUT'), actor: this.either(undefined, 'SYSTEM'), actorId: this.either('', 'desk'), note: this.either('', 'why'),
          requestId: this.requestId(),
        };
        return both((side) => [one[side], options]);
      }
      case 'listSessions': {
        const states = this.either([], ['ENDED'], ['EXPIRING'], ['ACTIVE', 'ENDED']);
        const options = { subject: this.either('', 'ada'), states, policy: this.either('', 'desk'), pageSize: this.either(3, 100) };
        return both(() => [options]);
      }
      case 'endSessions': {
        const options = { subject: this.either('ada', 'bob'), dryRun: this.either(true, false), note: 'all' };
        return both((side) => [{ ...options, excepted: [one[side]] }]);
      }
    }
    throw new Error(verb);
  }

  // ---- What is answered ----

  async ask(verb, given) {
    const answers = [];
    for (const [side, client] of (this.clients[verb] ?? [this.sidecar, this.fake]).entries()) {
      const answer = await answered(client, verb, await this.refs(side, given[side]));
      if (side === 0) await this.synchronise(Math.max(this.now, ...serverTimes(answer)));
      answers.push(answer);
    }
    this.learn(verb, answers);
    const told = answers.map((answer) => this.plain(answer));
    // The order of refs is that of the keys.
    const by = (each) => JSON.stringify(each.status?.sessionRef ?? each);
    const sort = (list) => list.sort((one, other) => (by(one) < by(other) ? -1 : 1));
    for (const each of told) if (Array.isArray(each) && verb === 'listSessions') sort(each);
    for (const each of told) if (each.sessionRefs) sort(each.sessionRefs);
    const came = `${verb} ${outcome(answers[0])}`;
    this.seen.set(came, (this.seen.get(came) ?? 0) + 1);
    this.story.push(`${((this.now - this.start) / 1_000).toFixed(3)} ${verb} ${JSON.stringify(this.plain(given[0]))}`);
    const problem = difference(...told);
    assert.equal(problem, undefined, [...this.story.slice(-40), problem, `program: ${JSON.stringify(told[0])}`, `fake:    ${JSON.stringify(told[1])}`].join('\n'));
  }

  async refs(side, given) {
    const found = async (each) => {
      if (Array.isArray(each)) return Promise.all(each.map(found));
      return each?.refOf === undefined ? each : { sessionRef: (await [this.sidecar, this.fake][side].check(each.refOf)).sessionRef };
    };
    return Promise.all(given.map(found));
  }

  /** Names a new session. */
  learn(verb, answers) {
    if (!['create', 'rotate'].includes(verb) || answers.some((each) => each instanceof Error)) return;
    const pair = answers.map((each) => each.sessionId);
    if (this.ids.some(([id, other]) => id === pair[0] && other === pair[1])) return;
    this.focus = pair;
    this.ids.push(pair);
    for (const each of answers) for (const key of [each.sessionId, each.session.status.sessionRef]) this.meaning.set(key, `s${this.ids.length}`);
  }

  /** What is told, comparable: times since the beginning, sessions by their names. */
  plain(value, key = '') {
    if (value instanceof Date) return { about: value - this.start };
    if (DURATIONS.has(key) && typeof value === 'number') return { about: value };
    if (value instanceof SessionEndedError || value instanceof SessionUnknownError) return [value.name, this.plain(value.answer)];
    if (value instanceof RefusedError) return [value.name, value.code, value.reason, this.plain(value.sessionRef, 'sessionRef')];
    if (value instanceof InvalidRequestError) return [value.name, ...value.fields];
    if (value instanceof NotPermittedError) return [value.name, value.code];
    if (typeof value === 'string') return this.meaning.get(value) ?? (/Ref$/.test(key) && value ? 'an unknown one' : value);
    if (Array.isArray(value)) return value.map((each) => this.plain(each, key.replace(/s$/, '')));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).filter(([name, each]) => name !== 'serverTime' && each !== undefined).map(([name, each]) => [name, this.plain(each, name)]));
  }
}

async function answered(client, verb, given) {
  try {
    if (verb !== 'listSessions') return await client[verb](...given);
    const listed = [];
    for await (const session of client.listSessions(...given)) listed.push(session);
    return listed;
  } catch (error) {
    if (!(error instanceof SidecarError)) throw error;
    return error;
  }
}

/** What a call came to, in a word. */
function outcome(answer) {
  if (answer instanceof RefusedError) return answer.reason;
  if (answer instanceof SessionEndedError) return answer.answer.reason;
  if (answer instanceof SidecarError) return answer.name;
  return [answer.kind ?? 'answered', answer.result, answer.clampedBy].filter(Boolean).join(' ');
}

/** All that a program said that its clock was. */
function serverTimes(value) {
  if (value instanceof Error) return serverTimes(value.answer);
  if (typeof value !== 'object' || value === null || value instanceof Date) return [];
  return [...(value.serverTime ? [+value.serverTime] : []), ...Object.values(value).flatMap(serverTimes)];
}

/** Where two answers differ, if they do. */
function difference(real, fake, path = '') {
  if (typeof real !== 'object' || typeof fake !== 'object' || !real || !fake) return real === fake ? undefined : `${path}: ${JSON.stringify(real)} and ${JSON.stringify(fake)}`;
  if ('about' in real && 'about' in fake) return Math.abs(real.about - fake.about) <= TOLERANCE ? undefined : `${path}: ${real.about} and ${fake.about}`;
  for (const key of new Set([...Object.keys(real), ...Object.keys(fake)])) {
    const told = difference(real[key], fake[key], `${path}.${key}`);
    if (told) return told;
  }
  return undefined;
}

/** What happened to each session, in order. */
function bySession(both, told) {
  const happened = {};
  for (const event of told.filter((each) => each.session)) {
    const plain = both.plain(event);
    (happened[plain.session.sessionRef] ??= []).push(plain);
  }
  return happened;
}

// What the histories must have come to, or they show less than they seem to.
const MUST_BE_SEEN = [
  'create answered', 'create SESSION_EXISTS', 'create ALREADY_PAST_LIMIT', 'create SUBJECT_CAP', 'create REQUEST_ID_REUSED', 'touch live COUNTED', 'touch live IGNORED',
  'touch live STALE', 'touch READ_ONLY_SESSION', 'extend answered', 'extend answered ABSOLUTE', 'extend EXTENSION_LIMIT', 'extend REQUEST_ID_REUSED', 'hold answered',
  'hold answered MAX_TTL', 'hold answered BUDGET', 'hold answered ABSOLUTE', 'hold HOLD_BUDGET', 'hold HOLD_CAP', 'hold HOLD_KIND', 'hold PRESENCE_OFF', 'rotate answered',
  'rotate SESSION_EXISTS', 'rotate NEW_SESSION_ENDED', 'rotate ALREADY_PAST_LIMIT',
];

test('the fake says what the program says', async (t) => {
  const seen = new Set();
  const [reasons, causes] = [new Set(), new Set()];
  for (const seed of SEEDS) {
    const process = await serve(t, { policy: POLICIES, query: '?verbs=use,issue,end,watch-all,admin' });
    const sidecar = connect(t, process.tcp);
    const desk = new SidecarAdmin({ target: process.tcp, deadline: PATIENCE });
    const both = await Both.begin(sidecar, desk, seed);
    const [watch, faked] = [sidecar.watch({ everything: true }), both.fake.watch({ everything: true })];
    const heard = [];
    const reader = (async () => { for await (const event of watch) heard.push(event); })();
    const told = await faked.told();
    await eventually(() => heard.length, 'the watch stands');
    for (let call = 0; call < CALLS; call += 1) {
      if (call % 12 === 0) await both.turn();
      await both.call();
    }
    await both.wait(30);
    told.push(...(await faked.told()));
    await eventually(() => heard.length >= told.length, 'all events have come');
    watch.close();
    await reader;
    desk.close();
    const [real, fake] = [bySession(both, heard), bySession(both, told)];
    for (const session of new Set([...Object.keys(real), ...Object.keys(fake)])) {
      assert.equal(difference(real[session], fake[session]), undefined, `${session}\nprogram: ${JSON.stringify(real[session])}\nfake:    ${JSON.stringify(fake[session])}`);
    }
    for (const came of both.seen.keys()) seen.add(came);
    if (globalThis.process.env.SHOW) console.log(MUST_BE_SEEN.map((each) => `${each} ${both.seen.get(each) ?? 0}`).join('\n'));
    for (const { kind, end, cause } of told) (kind === 'ended' ? reasons : causes).add(kind === 'ended' ? end.reason : cause);
  }
  assert.deepEqual(MUST_BE_SEEN.filter((each) => !seen.has(each)), []);
  assert.deepEqual([...reasons].sort(), ['ABSOLUTE_TIMEOUT', 'BROWSER_CLOSED', 'IDLE_TIMEOUT', 'LOGOUT', 'REVOKED', 'ROTATED', 'SUPERSEDED']);
  // A policy does not change here, and where a release moves an idle deadline to there is no window.
  assert.deepEqual([...causes].filter(Boolean).sort(), ['EXTENDED', 'HELD', 'NOT_ENFORCED', 'ROTATED', 'TOUCHED']);
});
