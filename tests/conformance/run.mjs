// Executes the conformance scenario with @grpc/grpc-js and prints its transcript: run.mjs TARGET. See README.md. clients/node/tests/conformance.mjs
// has the same scenario executed by a client on top of it.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

export const PATIENCE = 30_000; // ms; only a failing run waits as long
const FOR_PEOPLE = new Set(["summary", "explanation", "problem", "toml"]); // may be reworded

const tests = fileURLToPath(new URL("..", import.meta.url));
export const definition = loader.loadSync(
  [
    "sessionsidecar/v1/session_service.proto",
    "sessionsidecar/v1/session_admin_service.proto",
    "sessionsidecar/dev/v1/test_clock_service.proto",
    "google/rpc/errors.proto",
  ],
  { includeDirs: [`${tests}/../proto`, `${tests}/support/proto`], keepCase: true, longs: String, enums: String },
);
const { v1, dev } = grpc.loadPackageDefinition(definition).sessionsidecar;

/** What ids and refs are called in the transcript, where they must not stand themselves. */
class Names {
  byValue = new Map();

  /** A page token is told as `<token:page>`, and meant by `$page.token`. */
  learnPage(token) {
    for (const [value, shown] of this.byValue) if (shown === "<token:page>") this.byValue.delete(value);
    this.byValue.set(token, "<token:page>");
  }

  learn(alias, created) {
    this.#setDefault(created.session_id, `<id:${alias}>`);
    this.#setDefault(created.session.status.session_ref, `<ref:${alias}>`);
  }

  /** The id of `$alias`, the ref of `$alias.ref`. */
  value(name) {
    const [alias, kind = "id"] = name.slice(1).split(".");
    return [...this.byValue].find(([, shown]) => shown === `<${kind}:${alias}>`)[0];
  }

  shown(key, value) {
    if (key === "session_ref" && value) {
      // Of a session that nobody created: numbered.
      const unknown = [...this.byValue.values()].filter((shown) => shown.includes("unknown")).length;
      this.#setDefault(value, `<ref:unknown-${unknown + 1}>`);
    }
    return this.byValue.get(value) ?? value;
  }

  #setDefault(value, shown) {
    if (!this.byValue.has(value)) this.byValue.set(value, shown);
  }
}

// The API's naming rule tells the well-known types apart in what proto-loader decodes to plain objects.
const isTime = (key) => /(^|_)time$/.test(key);
const isDuration = (key) => /(_duration|_timeout|_in|_ttl|^point|^duration)$/.test(key);
const isNow = (key) => key === "server_time" || key === "emit_time";

/** Of a Duration or Timestamp. */
const seconds = (message) => Number(message.seconds ?? 0) + (message.nanos ?? 0) / 1e9;

/** In steps of ten seconds, from 6.5 s below to 3.5 s above: real time passes between two steps too, and most times get less by it. */
function duration(seconds) {
  const near = Math.floor((seconds + 6.5) / 10) * 10;
  const rest = Math.abs(near);
  const parts = [[3600, 1e6, "h"], [60, 60, "m"], [1, 60, "s"]]
    .map(([size, base, unit]) => [Math.floor(rest / size) % base, unit])
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count}${unit}`);
  return (near < 0 ? "-" : "") + (parts.join("") || "0s");
}

/** The sidecar's clock when it made this message: the first that is told in it. */
function findNow(message) {
  for (const [key, value] of Object.entries(message)) {
    if (isNow(key)) return seconds(value);
    const now = typeof value === "object" ? findNow(value) : undefined;
    if (now !== undefined) return now;
  }
  return undefined;
}

/** One line for each field that is set. Times are told relative to the message's own. */
export function flatten(names, message, prefix = "", now = findNow(message)) {
  const lines = [];
  for (const [key, value] of Object.entries(message)) {
    if (isNow(key) || key === "resume_token" || (prefix.endsWith("error.") && key === "message")) continue;
    const items = Array.isArray(value)
      ? value.map((item, place) => [`${prefix}${key}[${place}]`, item])
      : [[`${prefix}${key}`, value]];
    for (const [path, item] of items) {
      if (isTime(key)) {
        lines.push(`${path} = now ${duration(seconds(item) - now)}`);
      } else if (isDuration(key)) {
        lines.push(`${path} = ${duration(seconds(item))}`);
      } else if (key === "watcher_count") {
        // A watch that its client has just left may still be there.
        lines.push(`${path} = <watchers>`);
      } else if (FOR_PEOPLE.has(key)) {
        lines.push(`${path} = <text>`);
      } else if (typeof item === "object") {
        const inner = flatten(names, item, `${path}.`, findNow(item) ?? now);
        lines.push(...(inner.length > 0 ? inner : [`${path} = {}`]));
      } else {
        lines.push(`${path} = ${typeof item === "string" ? names.shown(key, item) : item}`);
      }
    }
  }
  return lines.sort();
}

const indented = (lines) => lines.map((line) => `  ${line}`);

/** An error: its code and typed details. Messages are for people, and may be reworded. */
export function failed(names, error) {
  const lines = [];
  for (const encoded of error.metadata?.get("grpc-status-details-bin") ?? []) {
    for (const detail of definition["google.rpc.Status"].deserialize(encoded).details) {
      const name = detail.type_url.split(".").pop();
      const content = definition[`google.rpc.${name}`].deserialize(detail.value);
      if (name === "ErrorInfo") {
        lines.push(`${name}.domain = ${content.domain}`, `${name}.reason = ${content.reason}`);
        for (const [key, value] of Object.entries(content.metadata ?? {})) {
          if (isTime(key) && Number.isNaN(Date.parse(value))) throw new Error(`${key} is not a time`);
          lines.push(`${name}.metadata.${key} = ${isTime(key) ? "<time>" : names.shown(key, value)}`);
        }
      } else if (name === "BadRequest") {
        lines.push(...content.field_violations.map((violation) => `${name}.field = ${violation.field}`));
      }
    }
  }
  return [grpc.status[error.code], ...indented(lines.sort())];
}

/** One watch, on a connection of its own, and the last token that came. */
class Watcher {
  constructor(target, request) {
    this.target = target;
    this.request = request;
    this.open();
  }

  open() {
    this.client = connect(v1.SessionService, this.target);
    this.stream = this.client.WatchExpiry(this.request);
    // Each stream has a list of its own: a cut one still has its cancellation to tell.
    const arrived = (this.arrived = []);
    const arrive = (outcome) => {
      arrived.push(outcome);
      this.#wake();
    };
    this.stream.on("data", (message) => arrive(() => message));
    this.stream.on("error", (error) => arrive(() => { throw error; }));
    this.stream.on("end", () => arrive(() => undefined));
  }

  cut() {
    this.stream.cancel();
    this.client.close();
  }

  resume() {
    // A resumed watch does not begin with the state again.
    this.request = { ...this.request, include_initial_state: false, resume_token: this.token };
    this.open();
  }

  /** The next message, or how the stream ended. */
  async read(names) {
    while (this.arrived.length === 0) {
      await new Promise((resolve, reject) => {
        this.#wake = resolve;
        setTimeout(() => reject(new Error("waited in vain for a message")), PATIENCE).unref();
      });
    }
    let message;
    try {
      message = this.arrived.shift()();
    } catch (error) {
      return failed(names, error);
    }
    if (message === undefined) return ["OK"];
    if (!message.resume_token) throw new Error("a message without a resume token");
    this.token = message.resume_token;
    return flatten(names, message);
  }

  #wake = () => {};
}

/** A client on a connection of its own. */
const connect = (Service, target) =>
  new Service(target, grpc.credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 });

const call = (client, method, request) =>
  new Promise((resolve, reject) => {
    const done = (error, answer) => (error ? reject(error) : resolve(answer));
    client[method](request, { deadline: Date.now() + PATIENCE }, done);
  });

/** JSON's durations, "90s", as the objects that proto-loader encodes. */
function encodable(key, value) {
  if (typeof value !== "string" || !/^-?[0-9.]+s$/.test(value)) return value;
  const seconds = Number.parseFloat(value);
  return { seconds: Math.trunc(seconds), nanos: Math.round((seconds % 1) * 1e9) };
}

/** JSON as the scenario's authors, and Python, write it: with a blank after each comma and colon. */
export const json = (value) => {
  if (Array.isArray(value)) return `[${value.map(json).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${json(item)}`).join(", ")}}`;
};

/** Executes steps; each returns the lines of its transcript. */
export class Runner {
  names = new Names();
  watchers = new Map();

  constructor(target) {
    this.target = target;
    this.sessions = connect(v1.SessionService, target);
    this.support = connect(v1.SessionAdminService, target);
    this.clock = connect(dev.v1.TestClockService, target);
  }

  /** A request as JSON, with the ids and refs that its names stand for. */
  named(content) {
    return JSON.stringify(content).replace(/"(\$[^"]+)"/g, (_, name) => JSON.stringify(this.names.value(name)));
  }

  request(content) {
    return JSON.parse(this.named(content), encodable);
  }

  answer(service, verb, content) {
    return call(service, verb, this.request(content));
  }

  call(step) {
    return this.#ask(step, step.call, this.sessions);
  }

  admin(step) {
    return this.#ask(step, step.admin, this.support);
  }

  async #ask(step, verb, service) {
    let outcome;
    try {
      const answer = await this.answer(service, verb, step.request);
      if (step.as) this.names.learn(step.as, answer);
      if (answer.next_page_token) this.names.learnPage(answer.next_page_token);
      outcome = ["OK", ...indented(flatten(this.names, answer))];
    } catch (error) {
      if (error.code === undefined) throw error;
      outcome = failed(this.names, error);
    }
    return [`${verb} ${json(step.request)}`, ...indented(outcome)];
  }

  async advance(step) {
    await call(this.clock, "Advance", this.request({ duration: step.advance }));
    return [`Advance ${step.advance}`];
  }

  watch(step, opened = (request) => new Watcher(this.target, this.request(request))) {
    this.watchers.set(step.watch, opened(step.request));
    return [`Watch (${step.watch}) ${json(step.request)}`];
  }

  async read(step) {
    const messages = [];
    for (let place = 0; place < step.count; place += 1) {
      messages.push(await this.watchers.get(step.read).read(this.names));
    }
    const unordered = step.any_order ?? 0;
    const ordered = [...messages.slice(0, unordered).sort(), ...messages.slice(unordered)];
    return ordered.flatMap((message) => [`Read (${step.read})`, ...indented(message)]);
  }

  cut(step) {
    this.watchers.get(step.cut).cut();
    return [`Cut (${step.cut})`];
  }

  resume(step) {
    this.watchers.get(step.resume).resume();
    return [`Resume (${step.resume})`];
  }

  note(step) {
    return ["", `# ${step.note}`];
  }

  async stop(step) {
    // The driver waits for this line, and stops the sidecar.
    console.log("Stop");
    const lines = [];
    for (const name of step.stop) lines.push(...(await this.read({ read: name, count: 2 })));
    return lines;
  }
}

export async function main(runner) {
  for (const step of JSON.parse(readFileSync(new URL("scenario.json", import.meta.url)))) {
    console.log((await runner[Object.keys(step)[0]](step)).join("\n"));
  }
  process.exit(0);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(new Runner(process.argv[2]));
