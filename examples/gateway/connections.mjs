// What of each session is open through this gateway, and what becomes of it when the session ends.

import { setTimeout as sleep } from 'node:timers/promises';

const LAST_ANSWERS = 5_000; // ms

export class Connections {
  #open = new Map(); // by ref
  #over = new Map(); // by ref: the ends of the last seconds
  #sidecar;

  constructor(sidecar) {
    this.#sidecar = sidecar;
    sidecar.watch(this);
  }

  /** Of how many sessions anything is open. */
  get size() {
    return this.#open.size;
  }

  /** A request goes on. `connection` has `close()`, and `lasts` from when it is known to be a socket or a stream. Answers what says that it is done. */
  add({ ref, subject }, connection) {
    Object.assign(connection, { ref, subject });
    if (!this.#open.has(ref)) this.#open.set(ref, new Set());
    this.#open.get(ref).add(connection);
    // The end may overtake the answer of the Touch that still found the session alive.
    if (this.#over.has(ref)) this.ended(ref, this.#over.get(ref));
    return () => this.#remove(connection);
  }

  ended(ref, why) {
    this.#over.set(ref, why);
    setTimeout(() => this.#over.delete(ref), LAST_ANSWERS);
    const connections = [...(this.#open.get(ref) ?? [])];
    if (why.reason !== 'ROTATED') return connections.forEach((connection) => this.#end(connection));
    // The session goes on under another ref, and so do they.
    for (const connection of connections) {
      this.#remove(connection);
      this.add({ ref: why.successor, subject: connection.subject }, connection);
    }
    if (connections.length > 0) this.#look(why.successor);
  }

  /** Ends were missed: who does not live has ended, or began since. */
  async missed(live) {
    for (const ref of [...this.#open.keys()].filter((ref) => !live.has(ref))) await this.#look(ref);
  }

  async #look(ref) {
    const session = await this.#sidecar.check({ sessionRef: ref }).catch(() => null);
    if (session?.error) return this.ended(ref, session);
    if (!session) return sleep(1000 * Math.random()).then(() => this.#look(ref));
    // After a login it is somebody else's: what was open before is not theirs.
    for (const connection of this.#open.get(ref) ?? []) if (connection.subject !== session.subject) this.#end(connection);
  }

  #end(connection) {
    // The answer that tells of the logout itself may still be under way.
    const close = () => this.#open.get(connection.ref)?.has(connection) && connection.close();
    if (connection.lasts) close();
    else setTimeout(close, LAST_ANSWERS);
  }

  #remove(connection) {
    const open = this.#open.get(connection.ref);
    open?.delete(connection);
    if (open?.size === 0) this.#open.delete(connection.ref);
  }
}
