// Executes the conformance scenario with `session-sidecar`: conformance.mjs TARGET, or with its fake: conformance.mjs fake. See
// tests/conformance/README.md.
//
// The scenario speaks of requests and answers of the wire. So each request is made into a call of the client, and what the client says is
// made into the message of the wire that it must have come from, field by field: what the client loses or bends is a difference in the
// transcript. Admin verbs, and requests that the client cannot be made to send, go out as they are: of the fake they are asked behind its
// client.

import './built.mjs';
import { readFileSync } from 'node:fs';
import { fromJson, toBinary } from '@bufbuild/protobuf';
import { anyPack } from '@bufbuild/protobuf/wkt';
import grpc from '@grpc/grpc-js';
import { parse } from 'smol-toml';
import { definition, failed, flatten, json, main, PATIENCE, Runner } from '../../../tests/conformance/run.mjs';

const { InvalidRequestError, NotPermittedError, RefusedError, SessionEndedError, SessionUnknownError, Sidecar, SidecarError } = await import('session-sidecar');
const { FakeSidecar } = await import('session-sidecar/fake');
const { BadRequestSchema, ErrorInfoSchema, StatusSchema } = await import('../dist/proto/errors_pb.js');
const v1 = await import('../dist/proto/sessionsidecar/v1/session_service_pb.js');
const { SessionAdminService } = await import('../dist/proto/sessionsidecar/v1/session_admin_service_pb.js');
const { Failed } = await import('../dist/transport.js');
const { message } = await import('../dist/wire.js');

// ---- From the wire to the client ----

/** A request that the client cannot be made to send. */
class Inexpressible extends Error {}

const PREFIXES = ['ACTIVITY_', 'PAGE_VISIBILITY_', 'HOLD_KIND_', 'END_REASON_', 'ACTOR_', 'EVENT_KIND_'];
const ENUMS = new Set(['activity', 'kind', 'reason', 'actor', 'pageVisibility', 'kinds']);
const camel = (key) => key.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());

/** The client's words for what the scenario says in JSON. */
function words(value, key = '') {
  if (Array.isArray(value)) return value.map((each) => words(each, key));
  if (typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([name, each]) => (key === 'labels' ? [name, each] : [camel(name), words(each, camel(name))])));
  if (ENUMS.has(key)) {
    const prefix = PREFIXES.find((each) => String(value).startsWith(each));
    if (!prefix) throw new Inexpressible();
    return value.slice(prefix.length);
  }
  return typeof value === 'string' && /^-?[0-9.]+s$/.test(value) ? Number.parseFloat(value) * 1000 : value;
}

const nameOf = ({ sessionId, sessionRef }) => (sessionRef === undefined ? sessionId : { sessionRef });

/** The verbs of the wire, by way of the client: each answers the message of the wire. */
const VERBS = {
  Create: async (sidecar, request) => encoded(v1.CreateResponseSchema, await sidecar.create(request)),
  Touch: async (sidecar, { sessionId = '', ...options }) => touchResponse(lived(await sidecar.touch(sessionId, options))),
  async BatchTouch(sidecar, { touches = [] }) {
    const outcomes = await sidecar.touchMany(touches);
    return message(v1.BatchTouchResponseSchema, { outcomes: outcomes.map((each) => (each.kind === 'live' ? { touch: touchResponse(each) } : { error: itemError(each) })) });
  },
  async Check(sidecar, { sessions, ...name }) {
    if (sessions) {
      const outcomes = await sidecar.checkMany(sessions.map(nameOf));
      return message(v1.CheckResponseSchema, { outcomes: outcomes.map((each) => (each.status ? { status: encoded(v1.SessionStatusSchema, each.status) } : { error: itemError(each) })) });
    }
    if (Object.keys(name).length === 0) throw new Inexpressible();
    const { session, status } = await sidecar.check(nameOf(name));
    return message(v1.CheckResponseSchema, { session: session ?? { status } });
  },
  Extend: async (sidecar, { sessionId, ...options }) => encoded(v1.ExtendResponseSchema, await sidecar.extend(sessionId, options)),
  async Hold(sidecar, { sessionId, holdId = '', ...options }) {
    if (!options.kind || options.ttl === undefined) throw new Inexpressible();
    return encoded(v1.HoldResponseSchema, await sidecar.hold(sessionId, holdId, options));
  },
  Release: async (sidecar, { sessionId, holdId }) => encoded(v1.ReleaseResponseSchema, await sidecar.release(sessionId, holdId)),
  Rotate: async (sidecar, { sessionId, ...options }) => encoded(v1.RotateResponseSchema, await sidecar.rotate(sessionId, options)),
  End: async (sidecar, { sessionId, ...options }) => encoded(v1.EndResponseSchema, await sidecar.end(sessionId, options)),
};

// ---- From the client to the wire ----

/** All that the client said, by the names of its fields; the id too, which it does not show. */
const encoded = (schema, answer) => message(schema, answer.sessionId ? { ...answer, sessionId: answer.sessionId } : answer);
const touchResponse = ({ status, counted, result, rule }) => message(v1.TouchResponseSchema, { status, counted, result, rule });

function lived(answer) {
  if (!answer.allowed) throw asWireError(answer);
  return answer;
}

/** What grpc-js would have failed with. */
function wireError(code, { reason, metadata = {}, fields = [] }) {
  const told = Object.fromEntries(Object.entries(metadata).filter(([, value]) => value));
  const details = [
    ...(reason ? [anyPack(ErrorInfoSchema, message(ErrorInfoSchema, { domain: 'sessionsidecar.v1', reason, metadata: told }))] : []),
    ...(fields.length ? [anyPack(BadRequestSchema, message(BadRequestSchema, { fieldViolations: fields.map((field) => ({ field })) }))] : []),
  ];
  for (const detail of details) detail.typeUrl = detail.typeUrl.replace('sessionsidecar.client.v1', 'google.rpc');
  const encodedStatus = Buffer.from(toBinary(StatusSchema, message(StatusSchema, { code: grpc.status[code], details })));
  return Object.assign(new Error(code), { code: grpc.status[code], metadata: { get: () => [encodedStatus] } });
}

function asWireError(problem) {
  if (problem instanceof SessionEndedError || problem instanceof SessionUnknownError) return asWireError(problem.answer);
  if (problem.kind === 'ended') {
    const { sessionRef: session_ref, end: { reason, actor, endTime, actorId: actor_id, note, successorRef: successor_ref } } = problem;
    return wireError('FAILED_PRECONDITION', { reason: 'SESSION_ENDED', metadata: { session_ref, reason, actor, end_time: endTime.toISOString(), actor_id, note, successor_ref } });
  }
  if (problem.kind === 'unknown') {
    return wireError('NOT_FOUND', { reason: 'SESSION_UNKNOWN', metadata: { session_ref: problem.sessionRef, may_have_ended: problem.mayHaveEnded ? 'true' : '' } });
  }
  if (problem instanceof RefusedError || problem instanceof NotPermittedError) return wireError(problem.code, problem);
  if (problem instanceof InvalidRequestError) return wireError('INVALID_ARGUMENT', problem);
  throw problem;
}

function itemError(problem) {
  if (problem.kind === 'ended') return { code: grpc.status.FAILED_PRECONDITION, reason: 'SESSION_ENDED', sessionRef: problem.sessionRef, end: problem.end };
  if (problem.kind === 'unknown') return { code: grpc.status.NOT_FOUND, reason: 'SESSION_UNKNOWN', sessionRef: problem.sessionRef };
  if (problem instanceof InvalidRequestError) return { code: grpc.status.INVALID_ARGUMENT, message: problem.message };
  throw problem;
}

/** A message as proto-loader has it, which is what transcripts are made of. */
const loaded = (told) => definition[told.$typeName].deserialize(Buffer.from(toBinary(SCHEMAS.get(told.$typeName), told)));
const METHODS = [v1.SessionService, SessionAdminService].flatMap((service) => service.methods);
const SCHEMAS = new Map(METHODS.map(({ output }) => [output.typeName, output]));

// ---- Running ----

/** One watch, and the last token that came. */
class Watcher {
  constructor(sidecar, { scope = {}, ...rest }) {
    const { tenant = '', sessions, ...wanted } = scope;
    this.sidecar = sidecar.withOptions({ tenant });
    const { includeInitialState: initialState = false, ...options } = rest;
    this.options = { ...options, ...wanted, initialState, ...(sessions && { sessions: sessions.names.map(nameOf) }) };
    this.open();
  }

  open() {
    try {
      this.watch = this.sidecar.watch(this.options);
    } catch (error) {
      this.watch = { next: () => Promise.reject(error) };
    }
  }

  cut() {
    this.watch.close();
  }

  resume() {
    this.options = { ...this.options, resumeToken: this.watch.resumeToken };
    this.open();
  }

  /** The next message, or how the stream ended. */
  async read(names) {
    let timer;
    const vain = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('waited in vain for a message')), PATIENCE); });
    let event;
    try {
      ({ value: event } = await Promise.race([this.watch.next(), vain]));
    } catch (error) {
      if (!(error instanceof SidecarError)) throw error;
      return failed(names, asWireError(error));
    } finally {
      clearTimeout(timer);
    }
    if (!event) return ['OK'];
    // A token that is of no use is no reason to give up: the watch goes on, with the state anew.
    if (event.reason === 'RESUME_TOKEN_INVALID') return failed(names, asWireError(new InvalidRequestError('', ['resume_token'])));
    if (event.kind === 'draining') this.watch.close();
    const { kind, emitTime, session, ...body } = event;
    const about = session && { session: { ...session, sessionId: session.sessionId } };
    return flatten(names, loaded(message(v1.WatchExpiryResponseSchema, { emitTime, [kind]: { ...about, ...body } })));
  }
}

class ClientRunner extends Runner {
  sidecar = new Sidecar({ target: this.target, deadline: PATIENCE });

  async answer(service, verb, content) {
    if (service !== this.sessions) return this.raw(service, verb, content);
    try {
      const { tenant = '', ...request } = words(JSON.parse(this.named(content)));
      return loaded(await VERBS[verb](this.sidecar.withOptions({ tenant }), request));
    } catch (error) {
      if (error instanceof Inexpressible) return this.raw(service, verb, content);
      throw error instanceof SidecarError ? asWireError(error) : error;
    }
  }

  raw(service, verb, content) {
    return super.answer(service, verb, content);
  }

  watch(step) {
    return super.watch(step, (request) => new Watcher(this.sidecar, words(JSON.parse(this.named(request)))));
  }
}

// ---- The fake in the sidecar's place ----

// The driver says why, and compares all else: see NOT_ASKED_OF_THE_FAKES in tests/conformance/conformance.py.
const NOT_ASKED = ['ExplainSession', 'ListPolicies', 'GetStats'];
// Lists are in the order of refs, which is that of the key. The scenario's key orders these sessions so.
const LISTED = ['first-id-of-vera-0123456789', 'third-id-of-vera-0123456789', 'second-id-of-vera-0123456789'];

/** Executes steps with the fake: nothing listens anywhere. */
class FakeRunner extends ClientRunner {
  static async make() {
    const { policy: policies } = parse(readFileSync(new URL('../../../tests/conformance/policy.toml', import.meta.url), 'utf8'));
    for (;;) {
      const sidecar = new FakeSidecar({ policies });
      const refs = await Promise.all(LISTED.map(async (each) => (await sidecar.check(each)).sessionRef));
      if (refs.join() === refs.toSorted().join()) return Object.assign(new FakeRunner('127.0.0.1:1'), { sidecar });
    }
  }

  async raw(service, verb, content) {
    const method = METHODS.find(({ name }) => name === verb);
    try {
      return loaded(this.sidecar.server.ask(method, fromJson(method.input, JSON.parse(this.named(content)))));
    } catch (error) {
      throw error instanceof Failed ? wireError(error.failure.code, error.failure) : error;
    }
  }

  async admin(step) {
    return NOT_ASKED.includes(step.admin) ? [`${step.admin} ${json(step.request)}`] : super.admin(step);
  }

  async advance(step) {
    await this.sidecar.advance(Number.parseFloat(step.advance) * 1000);
    return [`Advance ${step.advance}`];
  }

  stop(step) {
    this.sidecar.drain();
    return super.stop(step);
  }
}

await main(process.argv[2] === 'fake' ? await FakeRunner.make() : new ClientRunner(process.argv[2]));
