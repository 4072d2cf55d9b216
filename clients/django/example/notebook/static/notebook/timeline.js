// What happens to the session, as <session-sidecar> tells it.
const element = document.querySelector('session-sidecar');
const at = (id) => document.getElementById(id);
const timeline = at('timeline');
const LIMITS = { IDLE: 'until it ends if nothing happens', ABSOLUTE: 'until it ends, whatever happens', PRESENCE: 'until it ends, for its pages are gone' };

function tell(event, text) {
  const item = document.createElement('li');
  item.dataset.event = event;
  const time = document.createElement('time');
  const now = new Date();
  time.dateTime = now.toISOString();
  time.textContent = now.toLocaleTimeString();
  item.append(time, text);
  timeline.prepend(item);
}

const span = (seconds) => {
  const whole = Math.max(0, Math.ceil(seconds));
  const parts = [Math.trunc(whole / 3600), Math.trunc(whole / 60) % 60, whole % 60];
  return (parts[0] ? parts : parts.slice(1)).map((part, index) => (index ? String(part).padStart(2, '0') : part)).join(':');
};

let known;
function show() {
  const { state, session_ref: ref, limit } = element.session.state;
  at('state').textContent = { ACTIVE: 'live', EXPIRING: 'live, and about to end', ENDED: 'over', UNKNOWN: 'over', NONE: '…' }[state] ?? state;
  at('ref').textContent = ref ?? '…';
  at('left').textContent = Number.isFinite(element.session.left) ? span(element.session.left) : '–';
  at('limit').textContent = LIMITS[limit] ?? '';
  if (ref && known && ref !== known) tell('renamed', 'It goes on under another id.');
  known = ref ?? known;
}

if (element) {
  await customElements.whenDefined('session-sidecar');
  element.session.addEventListener('state', show);
  element.addEventListener('warning', ({ detail }) => tell('warning', `It ends in ${span(element.session.left)}${detail.can_extend ? '' : ', and cannot be put off'}.`));
  element.addEventListener('cleared', () => tell('cleared', 'It goes on.'));
  element.addEventListener('ended', ({ detail }) => tell('ended', `It ended ${detail.end?.message ?? ''}`.trimEnd() + '.'));
  element.addEventListener('unsure', () => tell('unsure', 'Nobody can tell whether it goes on.'));
  setInterval(show, 1000);
  show();
}
