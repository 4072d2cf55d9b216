/**
 * The session of the person at this browser: they are warned before it ends, can stay, and are told why it is over.
 * Nothing here knows the session's id: the site's cookie does. All deadlines are on `performance.now()`.
 */

const OWN_HEADER = { 'X-Session-Sidecar': '1' };
const TIMEOUT = 10_000; // of a call, ms
const LATE = 1_000; // a deadline passed without a word: ask this much later
const POLL = 30_000; // how often to ask where nobody tells
const SLEPT = 3_000; // the clocks of wall and page have come apart so far: the machine slept
const REPORT = 60; // input is reported this often at most, in s; a sixth of the idle timeout if that is less
const HOLD = 180; // timers of a hidden page run once a minute
const GOES_ON = 30_000; // how long it may take to get to another page
const AWAY = 5_000; // between attempts to open the stream again

const now = () => performance.now();
const EVENTS = ['state', 'warning', 'cleared', 'ended', 'unsure'];
const isLive = (state) => state === 'ACTIVE' || state === 'EXPIRING';

/** The door's `session/` as this module's own address says, or `/-/session/`. */
const ownBase = () => {
  const { href, pathname } = new URL(import.meta.url);
  return pathname.endsWith('/session/sidecar.js') ? new URL('.', href).href : '/-/session/';
};

/** A session, as the pages of this browser know it: one of them hears of it from the sidecar, and tells the others. */
export class Session extends EventTarget {
  #base;
  #state = { state: 'NONE' };
  #seen = false; // live, by this page
  #unsure = false; // it should be over, and nobody says so
  #timer = 0;
  #report = { at: -Infinity, input: -Infinity, timer: 0 };
  #stream = null;
  #present = false; // it has had a stream, by which the sidecar takes this page for open
  #goesOn = -Infinity; // when the person last set out for another page of the site
  #letGo = null; // of the lead
  #gone = false; // the lead comes too late
  #stop = null;
  #channel = null;
  #page = Array.from(crypto.getRandomValues(new Uint8Array(9)), (byte) => byte.toString(36)).join('');
  #holds = new Set();

  /** `base`: where the door's `session/` is. */
  constructor({ base = ownBase() } = {}) {
    super();
    this.#base = new URL(base, document.baseURI);
    if (!this.#base.pathname.endsWith('/')) this.#base.pathname += '/';
  }

  /** What is known: as the door says it, with `endsAt` and `warnsAt` on this page's `performance.now()`. */
  get state() {
    return this.#state;
  }

  /** Seconds until the end, if nothing else happens. */
  get left() {
    return Math.max(0, ((this.#state.endsAt ?? Infinity) - now()) / 1000);
  }

  /** Whether pointer movement counts: not while a warning is shown, and nothing but `extend` with `explicit-stay`. */
  counts = { pointer: true, keys: true };

  /** Begins to listen. Until `stop`. */
  start() {
    if (this.#stop) return;
    const stop = (this.#stop = new AbortController());
    const on = (target, types, listener) => {
      for (const type of types) target.addEventListener(type, listener, { signal: stop.signal, passive: true, capture: true });
    };
    this.#channel = new BroadcastChannel(`session-sidecar ${this.#base}`);
    this.#channel.onmessage = ({ data }) => this.#heard(data);
    on(document, ['pointermove', 'pointerdown', 'wheel', 'touchstart'], (event) => event.isTrusted && this.counts.pointer && this.#input());
    on(document, ['keydown'], (event) => event.isTrusted && this.counts.keys && this.#input());
    on(document, ['visibilitychange'], () => (document.hidden ? this.#flush() : this.refresh()));
    on(window, ['focus', 'online'], () => this.refresh());
    on(document, ['resume'], () => this.refresh());
    on(globalThis.navigation ?? new EventTarget(), ['navigate'], ({ destination, downloadRequest }) => {
      const stays = destination.sameDocument || downloadRequest !== null;
      if (!stays && new URL(destination.url).origin === location.origin) this.#goesOn = now();
    });
    on(window, ['pagehide'], (event) => this.#left(event.persisted));
    on(window, ['pageshow'], (event) => event.persisted && this.#lead());
    let apart = Date.now() - now();
    const look = setInterval(() => {
      const was = apart;
      apart = Date.now() - now();
      if (Math.abs(apart - was) > SLEPT) this.refresh();
    }, 15_000);
    stop.signal.addEventListener('abort', () => clearInterval(look));
    this.refresh();
    this.#lead();
  }

  /** Listens no longer. */
  stop() {
    this.#stop?.abort();
    this.#stop = null;
    this.#letGo?.();
    this.#leave();
    this.#channel?.close();
    clearTimeout(this.#timer);
    clearTimeout(this.#report.timer);
  }

  /** Asks what the session's state is. That is no activity. */
  async refresh() {
    try {
      const answer = await this.#ask('GET', '../session');
      if (!answer.ok) throw answer;
      this.#learn(await answer.json(), true);
    } catch {
      this.#unreachable();
    }
    return this.#state;
  }

  /** The person wants to stay: `wanted` seconds from now, or one idle timeout. Answers whether they may. */
  async extend(wanted) {
    return this.#change('extend', wanted === undefined ? {} : { wanted });
  }

  /** The person was active `idleFor` seconds ago. Input on this page is reported without this. */
  async activity(idleFor = 0) {
    return this.#change('activity', { idle_for: idleFor, visibility: document.visibilityState });
  }

  /**
   * Keeps the session alive for long work (an upload), until `release`, or the page goes; `ttl` seconds after it was lost. Pulses by
   * itself. Answers null if that is refused.
   */
  async hold({ purpose = '', ttl = HOLD, id = `work-${this.#page}-${this.#holds.size}-${Math.trunc(now())}` } = {}) {
    const hold = { timer: 0, release: () => this.#release(id, hold) };
    const pulse = async () => {
      const granted = await this.#change('hold', { id, ttl, purpose });
      // Refused while it lasted: nothing is left to hold.
      if (granted === false) this.#holds.delete(hold);
      if (this.#holds.has(hold)) hold.timer = setTimeout(pulse, ((granted?.granted_ttl ?? ttl) * 1000) / 3);
      return granted;
    };
    this.#holds.add(hold);
    return (await pulse()) === false ? null : { id, release: hold.release };
  }

  async #release(id, hold) {
    clearTimeout(hold.timer);
    if (this.#holds.delete(hold)) await this.#change('release', { id });
  }

  #ask(method, path, body) {
    return fetch(new URL(path, this.#base), {
      method,
      headers: OWN_HEADER,
      body: body && JSON.stringify(body),
      credentials: 'same-origin',
      cache: 'no-store',
      redirect: 'error',
      keepalive: method === 'POST',
      signal: AbortSignal.timeout(TIMEOUT),
    });
  }

  /** What is so now; false if it is refused, undefined if it cannot be known now. */
  async #change(verb, body) {
    try {
      const answer = await this.#ask('POST', verb, body);
      const told = await answer.json();
      if (answer.ok) this.#learn(told, true);
      else if (answer.status === 401) this.refresh();
      return answer.ok ? told : answer.status < 500 ? false : undefined;
    } catch {
      return undefined;
    }
  }

  #input() {
    const report = this.#report;
    report.input = now();
    const { state, limit, idle_timeout = Infinity } = this.#state;
    if (!isLive(state)) return;
    // A warning that input can withdraw is withdrawn at once.
    const soon = state === 'EXPIRING' && limit !== 'ABSOLUTE';
    const every = soon ? 1 : Math.min(REPORT, Math.max(1, idle_timeout / 6));
    const wait = report.at + every * 1000 - report.input;
    if (wait <= 0) this.#flush();
    else if (soon || !report.timer) {
      clearTimeout(report.timer);
      report.timer = setTimeout(() => this.#flush(), wait);
    }
  }

  /** Reports the last input, once. */
  #flush() {
    const report = this.#report;
    clearTimeout(report.timer);
    report.timer = 0;
    if (report.input <= report.at) return;
    report.at = now();
    this.activity((report.at - report.input) / 1000);
  }

  #heard(session) {
    // One that is new here may be over before this message is read: the door knows.
    if (session.session_ref === this.#state.session_ref) this.#learn(session, false);
    else this.refresh();
  }

  /** This is the state now. `fresh`: other pages may not know it. */
  #learn(session, fresh) {
    const known = this.#state;
    const same = known.session_ref === session.session_ref;
    if (same && (session.version < known.version || !isLive(known.state)) && isLive(session.state)) return;
    const at = (seconds) => (seconds === undefined ? undefined : now() + seconds * 1000);
    const keep = same && { idle_timeout: known.idle_timeout };
    const state = { ...keep, ...session, endsAt: at(session.expires_in), warnsAt: at(session.next_warning_in) };
    if (same && !state.presence) state.presence = known.presence;
    this.#state = state;
    this.#seen ||= isLive(state.state);
    const changed = !same || this.#unsure || known.state !== state.state || known.version !== state.version;
    this.#unsure = false;
    if (fresh && changed) this.#channel?.postMessage(session);
    if (!isLive(state.state)) this.#close();
    else if (this.#letGo && !this.#stream) this.#open();
    this.#schedule();
    if (changed) this.#tell(known);
  }

  #tell(known) {
    const { state, limit, warn_before = known.warn_before } = this.#state;
    const tell = (type) => this.dispatchEvent(new CustomEvent(type, { detail: this.#state }));
    tell('state');
    // Once for each point: a version that grew says nothing of it.
    const again = known.state === state && known.limit === limit && known.warn_before === warn_before;
    if (state === 'EXPIRING') again || tell('warning');
    else if (state === 'ACTIVE' && (known.state === 'EXPIRING' || known.state === 'ENDED')) tell('cleared');
    // Only where somebody was in the midst of something. The page of a login says by itself why it is shown.
    else if (this.#seen && isLive(known.state) && !isLive(state)) tell('ended');
  }

  #unreachable() {
    const { state, endsAt } = this.#state;
    if (isLive(state) && endsAt <= now() && !this.#unsure) {
      this.#unsure = true;
      this.dispatchEvent(new CustomEvent('unsure', { detail: this.#state }));
    }
    this.#schedule(AWAY);
  }

  /** When to ask next: where a word should have come, or where nobody tells. */
  #schedule(least = 0) {
    clearTimeout(this.#timer);
    const { state, endsAt = Infinity, warnsAt = Infinity } = this.#state;
    if (!this.#stop || !isLive(state)) return;
    const next = Math.min(endsAt, warnsAt) + LATE - now();
    const wait = Math.max(least, Math.min(Math.max(next, LATE), this.#stream || document.hidden ? Infinity : POLL));
    if (wait < 2 ** 31) this.#timer = setTimeout(() => this.refresh(), wait);
  }

  /** Of all pages of this browser one has the stream. Where there are no locks every page asks now and then. */
  #lead() {
    this.#gone = false;
    navigator.locks?.request(`session-sidecar ${this.#base}`, { signal: this.#stop?.signal }, () => {
      if (!this.#stop || this.#gone) return undefined;
      return new Promise((letGo) => {
        this.#letGo = () => {
          this.#letGo = null;
          letGo();
        };
        if (isLive(this.#state.state)) this.#open();
      });
    }).catch(() => {}); // stopped while it waited
  }

  #open() {
    this.#present = true;
    this.#succeeds(false);
    const stream = (this.#stream = new EventSource(new URL(`events?page=${this.#page}`, this.#base), { withCredentials: true }));
    const on = (type, listener) => stream.addEventListener(type, ({ data }) => listener(JSON.parse(data)));
    const session_ref = this.#state.session_ref;
    const about = (state, told) => this.#learn({ ...this.#state, session_ref, next_warning_in: undefined, ...told, state }, true);
    on('state', (told) => this.#learn(told, true));
    on('warning', (told) => about('EXPIRING', told));
    on('cleared', (told) => {
      about('ACTIVE', told);
      this.refresh(); // it knows of the next warning
    });
    on('ended', (told) => {
      if (told.end.reason !== 'ROTATED') {
        about('ENDED', told);
        this.refresh(); // an answer, unlike an event, can take the cookie back
        return;
      }
      // It goes on by another name, which the browser's cookie is about to say.
      this.#close();
      setTimeout(() => this.refresh(), LATE);
    });
    stream.onopen = () => this.#succeeds(true);
    stream.onerror = () => {
      // It comes back by itself unless it was refused: then the door says why.
      if (stream.readyState !== EventSource.CLOSED) return;
      this.#close();
      setTimeout(() => this.refresh(), AWAY);
    };
  }

  #close() {
    this.#stream?.close();
    this.#stream = null;
  }

  /**
   * This page is open no longer, as the sidecar is to know: unless the person goes on to another page of the site, which may be one
   * without this module. Then the next one with a stream says it. A browser that does not tell is not taken for closed.
   */
  #leave() {
    this.#close();
    if (this.#present && globalThis.navigation && now() - this.#goesOn > GOES_ON) {
      this.#succeeds(true);
      this.#isGone(this.#page);
    }
    this.#present = false;
  }

  #isGone(page) {
    if (this.#state.presence) this.#ask('POST', `leave?page=${page}`).catch(() => {});
  }

  /** The pages that led before are open no longer: `said` once this one has a stream, or goes. */
  #succeeds(said) {
    try {
      const key = `session-sidecar ${this.#base}`;
      const before = (localStorage.getItem(key)?.split(' ') ?? []).filter((page) => page !== this.#page);
      localStorage.setItem(key, [...(said ? [] : before.slice(-3)), this.#page].join(' '));
      if (said) before.forEach((page) => this.#isGone(page));
    } catch {
      // No storage: what is not known to be gone lapses.
    }
  }

  /** This page goes; another one leads. */
  #left(persisted) {
    this.#gone = true;
    this.#flush();
    this.#leave();
    this.#letGo?.();
    if (!persisted) for (const hold of this.#holds) hold.release();
  }
}

const STYLE = `
:host { --accent: #0b57d0; --on-accent: #fff; --paper: #fff; --ink: #1f1f1f; --veil: rgb(0 0 0 / .55); color-scheme: light dark }
@media (prefers-color-scheme: dark) { :host { --accent: #a8c7fa; --on-accent: #062e6f; --paper: #1f1f1f; --ink: #e8e8e8; --veil: rgb(0 0 0 / .75) } }
dialog { box-sizing: border-box; inline-size: min(28rem, calc(100vw - 2rem)); max-block-size: calc(100vh - 2rem); overflow: auto; padding: 1.5rem;
  border: 1px solid currentColor; border-radius: .75rem; background: var(--session-paper, var(--paper)); color: var(--session-ink, var(--ink)); font: 1rem/1.5 system-ui, sans-serif }
dialog::backdrop { background: var(--veil) }
dialog.over::backdrop { background: var(--session-paper, var(--paper)) }
h2 { margin: 0 0 .5rem; font-size: 1.25rem; line-height: 1.3 }
p { margin: 0 0 1rem }
.left { font-variant-numeric: tabular-nums }
.do { display: flex; flex-wrap: wrap; gap: .75rem; margin: 0 }
button, a { box-sizing: border-box; min-block-size: 2.75rem; padding: .5rem 1.25rem; border: 2px solid var(--session-accent, var(--accent)); border-radius: 2rem;
  font: inherit; text-decoration: none; cursor: pointer; background: none; color: inherit }
.first { background: var(--session-accent, var(--accent)); color: var(--session-on-accent, var(--on-accent)) }
:focus-visible { outline: 3px solid var(--session-ink, var(--ink)); outline-offset: 2px }
.told { position: absolute; inline-size: 1px; block-size: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap }
[hidden] { display: none }
@media (prefers-reduced-motion: no-preference) { dialog[open] { animation: in .15s } @keyframes in { from { opacity: 0 } } }
`;

/** What is said, unless an attribute `text-…` says otherwise. {left} is the time that is left. */
const TEXTS = {
  heading: 'Are you still there?',
  warning: 'You will be logged out in {left}, because nothing has happened for a while.',
  absolute: 'You will be logged out in {left}, whatever you do. Please save your work.',
  stay: 'Stay logged in',
  ok: 'OK',
  logout: 'Log out now',
  ended: 'You have been logged out',
  why: 'Your session ended {why}.',
  unknown: 'Your session has ended.',
  unsure: 'The site cannot be reached, and your session may have ended meanwhile. It is asked again and again.',
  login: 'Log in again',
};
/** When screen readers are told of the time that is left, in s. */
const MARKS = [120, 60, 30];

/** `<session-sidecar>`: a dialog over the page, where there is something to say. Attributes: see README.md. */
export class SessionSidecar extends HTMLElement {
  #session = null;
  #tick = 0;
  #parts;
  #dismissed = 0; // the version of a warning that was read, and cannot be answered

  constructor() {
    super();
    const sheet = new CSSStyleSheet(); // allowed by any Content-Security-Policy, as style elements are not
    sheet.replaceSync(STYLE);
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [sheet];
    const make = (tag, set = {}, ...inner) => {
      const made = document.createElement(tag);
      for (const [name, value] of Object.entries(set)) made.setAttribute(name, value);
      made.append(...inner);
      return made;
    };
    const heading = make('h2', { id: 'heading' });
    const text = make('p', { id: 'text', class: 'left' });
    const told = make('p', { class: 'told', 'aria-live': 'polite' });
    const stay = make('button', { type: 'button', class: 'first', autofocus: '' });
    const logout = make('a', {});
    const login = make('a', { class: 'first' });
    const labelled = { role: 'alertdialog', 'aria-modal': 'true', 'aria-labelledby': 'heading', 'aria-describedby': 'text' };
    const dialog = make('dialog', labelled, heading, text, told, make('p', { class: 'do' }, stay, logout, login));
    root.append(dialog);
    this.#parts = { dialog, heading, text, told, stay, logout, login };
    stay.addEventListener('click', () => this.#stay());
    // Escape is a key like any other; with explicit-stay it means nothing.
    dialog.addEventListener('cancel', (event) => event.preventDefault());
  }

  /** The session: its events are `state`, `warning`, `cleared`, `ended` and `unsure`; its `hold()` is for long work. */
  get session() {
    return (this.#session ??= new Session(this.hasAttribute('base') ? { base: this.getAttribute('base') } : {}));
  }

  connectedCallback() {
    for (const type of EVENTS) this.session.addEventListener(type, this);
    this.session.start();
  }

  disconnectedCallback() {
    for (const type of EVENTS) this.session.removeEventListener(type, this);
    this.session.stop();
    this.#hide();
  }

  /** Of the session's events. Those that a page may want to hear of go on from this element. */
  handleEvent({ type, detail }) {
    if (type === 'state') {
      if (detail.state === 'ACTIVE') this.#hide();
      else if (detail.state === 'EXPIRING') this.#warn();
    } else if (type === 'unsure') this.#over(this.#text('unsure'));
    else if (type === 'ended') this.#over(this.#reason(detail.end), detail);
    if (type !== 'state') this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true }));
  }

  #text(name, or = TEXTS[name]) {
    return this.getAttribute(`text-${name}`) ?? or;
  }

  #reason(end) {
    if (!end) return this.#text('unknown');
    return this.#text(`reason-${end.reason.toLowerCase().replaceAll('_', '-')}`, this.#text('why').replace('{why}', end.message));
  }

  /** A time in the page's language. */
  #time(seconds) {
    const whole = Math.max(0, Math.ceil(seconds));
    const unit = (value, name) => new Intl.NumberFormat(this.closest('[lang]')?.lang || undefined, { style: 'unit', unit: name, unitDisplay: 'long' }).format(value);
    const [minutes, rest] = [Math.trunc(whole / 60), whole % 60];
    return [minutes && unit(minutes, 'minute'), (rest || !minutes) && unit(rest, 'second')].filter(Boolean).join(' ');
  }

  #warn() {
    const { limit, can_extend: can, version } = this.session.state;
    if (this.#dismissed === version) return;
    const { dialog, heading, stay, logout, login } = this.#parts;
    heading.textContent = this.#text('heading');
    stay.textContent = this.#text(can ? 'stay' : 'ok');
    logout.textContent = this.#text('logout');
    logout.href = this.getAttribute('logout-url') ?? '';
    stay.hidden = false;
    logout.hidden = !this.hasAttribute('logout-url');
    login.hidden = true;
    dialog.classList.remove('over');
    const ahead = MARKS.filter((mark) => mark < this.session.left);
    const show = () => {
      const { left } = this.session;
      const said = this.#text(limit === 'ABSOLUTE' ? 'absolute' : 'warning').replace('{left}', this.#time(left));
      this.#parts.text.textContent = said;
      if (left > ahead[0] || !ahead.length) return;
      ahead.shift();
      this.#parts.told.textContent = said;
    };
    show();
    clearInterval(this.#tick);
    this.#tick = setInterval(show, 1000);
    this.#show();
  }

  #over(why, { login_url: url, end } = {}) {
    const { dialog, heading, text, told, stay, logout, login } = this.#parts;
    clearInterval(this.#tick);
    heading.textContent = this.#text('ended');
    text.textContent = why;
    told.textContent = '';
    stay.hidden = logout.hidden = true;
    login.hidden = !url;
    login.textContent = this.#text('login');
    if (url) {
      const to = new URL(url, document.baseURI);
      if (end) to.searchParams.set('reason', end.reason);
      to.searchParams.set('next', location.pathname + location.search);
      login.href = to.href;
    }
    dialog.classList.add('over');
    this.#show();
    login.focus();
  }

  #show() {
    this.session.counts = { pointer: false, keys: !this.hasAttribute('explicit-stay') };
    if (this.isConnected && !this.#parts.dialog.open) this.#parts.dialog.showModal();
  }

  #hide() {
    clearInterval(this.#tick);
    this.session.counts = { pointer: true, keys: true };
    this.#parts.told.textContent = '';
    this.#parts.dialog.close(); // and the focus goes back to where it was
  }

  async #stay() {
    const { can_extend: can, version } = this.session.state;
    if (can && (await this.session.extend()) !== false) return;
    this.#dismissed = version;
    this.#hide();
  }
}

customElements.get('session-sidecar') ?? customElements.define('session-sidecar', SessionSidecar);
