// What the gateway asks the sidecar, and what it is told by it, over gRPC.

import { setTimeout as sleep } from 'node:timers/promises';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const PATIENCE = 250; // ms, for all that one request needs to know
const HEARTBEAT = 15; // s
const MOST_SUBJECTS = 10_000;
const MOST_STARTS = 50; // a second
const { ALREADY_EXISTS, DEADLINE_EXCEEDED, FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND, OUT_OF_RANGE, RESOURCE_EXHAUSTED, UNAVAILABLE } = grpc.status;

/** Whether nobody can say now: the sidecar, or its store. */
export const isAway = ({ code }) => code === UNAVAILABLE || code === DEADLINE_EXCEEDED;

const why = ({ reason, successorRef }) => ({ reason: reason.replace('END_REASON_', ''), successor: successorRef });

export class Sidecar {
  #subjects = new Map(); // by ref, and never out of date: a session with another subject has another ref
  #starts = { second: 0, count: 0 };
  #client;

  constructor(target, protos) {
    const options = { includeDirs: [protos], enums: String, longs: Number, oneofs: true, defaults: true };
    const definition = loader.loadSync('sessionsidecar/v1/session_service.proto', options);
    const { SessionService } = grpc.loadPackageDefinition(definition).sessionsidecar.v1;
    // It stands beside us: when it is back, it is to be found at once.
    const channel = { 'grpc.initial_reconnect_backoff_ms': 100, 'grpc.max_reconnect_backoff_ms': 1000 };
    this.#client = new SessionService(target, grpc.credentials.createInsecure(), channel);
  }

  /** Tells of a request. Its session lives if the answer has no `error`. Throws if that cannot be known now. */
  async touch(id, { hints, passive, start }, deadline = Date.now() + PATIENCE) {
    const activity = passive ? 'ACTIVITY_BACKGROUND' : 'ACTIVITY_UNSPECIFIED';
    try {
      const { status } = await this.#call('Touch', { sessionId: id, activity, hints }, deadline);
      const subject = this.#subjects.get(status.sessionRef);
      if (status.alias || subject !== undefined) return this.#told(status, subject);
      return await this.check({ sessionRef: status.sessionRef }, deadline);
    } catch (error) {
      if (error.code === INVALID_ARGUMENT) return { error: 'INVALID' };
      // It has ended, which does not change: a second call may say why. Or it is for reading only.
      if (error.code === FAILED_PRECONDITION) return { error: 'READ_ONLY_SESSION', ...(await this.check({ sessionId: id }, deadline)) };
      if (error.code !== NOT_FOUND) throw error;
      if (start && (await this.#begin(id, deadline))) return this.touch(id, { hints }, deadline);
      return { error: 'SESSION_UNKNOWN' };
    }
  }

  /** What a session is. That is no activity. */
  async check(name, deadline = Date.now() + PATIENCE) {
    try {
      const { session } = await this.#call('Check', name, deadline);
      return this.#told(session.status, session.subject, session.end);
    } catch (error) {
      if (error.code === INVALID_ARGUMENT) return { error: 'INVALID' };
      throw error;
    }
  }

  /** Tells of all ends, for ever: `ended(ref, { reason, successor })`; and after a gap `missed(live)`, with the refs of those that live. */
  async watch(connections) {
    for (let token = '', well = true; ; ) {
      const live = new Set();
      const stream = this.#client.WatchExpiry({
        scope: { wholeTenant: true },
        kinds: ['EVENT_KIND_ENDED'],
        heartbeatInterval: { seconds: HEARTBEAT },
        resumeToken: token,
        // Who has nothing open needs no list of all sessions.
        includeInitialState: !token && connections.size > 0,
      });
      const silence = setTimeout(() => stream.cancel(), 3 * HEARTBEAT * 1000);
      try {
        // Nothing in this loop waits: who reads too slowly is cut off.
        for await (const { resumeToken, message, snapshot, ended } of stream) {
          silence.refresh();
          if (!well) console.error('the sidecar tells of ends again');
          [token, well] = [resumeToken, true];
          if (message === 'snapshot') live.add(snapshot.session.sessionRef);
          if (message === 'snapshotEnd') connections.missed(live);
          if (message === 'ended') connections.ended(ended.session.sessionRef, why(ended.end));
        }
      } catch (error) {
        // The log does not reach back so far, or the token is not of this sidecar: begin anew, with the state.
        if (error.code === OUT_OF_RANGE || error.code === INVALID_ARGUMENT) token = '';
        if (well) console.error(`the sidecar does not tell of ends: ${error.details}`);
        well = false;
      }
      clearTimeout(silence);
      await sleep(100 + 900 * Math.random());
    }
  }

  #told({ state, alias, sessionRef: ref, expiresIn }, subject, end) {
    // Within the grace after a Rotate the former id leads on. Not at the door: whoever still has that cookie may not be the one who logged in.
    if (alias) return { error: 'SESSION_ENDED', reason: 'ROTATED' };
    if (state === 'SESSION_STATE_UNKNOWN') return { error: 'SESSION_UNKNOWN' };
    if (end) return { error: 'SESSION_ENDED', ref, ...why(end) };
    this.#subjects.set(ref, subject);
    if (this.#subjects.size > MOST_SUBJECTS) this.#subjects.delete(this.#subjects.keys().next().value);
    return { ref, subject, expiresIn: expiresIn && expiresIn.seconds + expiresIn.nanos / 1e9 };
  }

  /** Begins a session, if there is room: made-up ids shall not take that of real logins. */
  async #begin(id, deadline) {
    const second = Math.floor(performance.now() / 1000);
    if (this.#starts.second !== second) this.#starts = { second, count: 0 };
    if (++this.#starts.count > MOST_STARTS) return false;
    try {
      await this.#call('Create', { sessionId: id }, deadline);
    } catch (error) {
      if (error.code === RESOURCE_EXHAUSTED) return false;
      // Another request of the same page was faster.
      if (error.code !== ALREADY_EXISTS) throw error;
    }
    return true;
  }

  #call(verb, request, deadline) {
    return new Promise((resolve, reject) => {
      this.#client[verb](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }
}
