// What a site may write: tsc reads it, nobody runs it.
import { Session, type Hold, type SessionState } from '../../clients/browser/session-sidecar.js';

const element = document.querySelector('session-sidecar');
if (!element) throw new Error('there is none');
const session: Session = element.session;
session.addEventListener('ended', ({ detail }) => console.log(detail.end?.reason === 'IDLE_TIMEOUT', detail.login_url));
const state: Readonly<SessionState> = await session.refresh();
// @ts-expect-error it is read only
state.state = 'ENDED';
const work: Hold | null = await session.hold({ purpose: 'upload', ttl: 300 });
await work?.release();
const stayed = await session.extend(900);
if (stayed) console.log(stayed.endsAt);
new Session({ base: '/-/session/' }).start();
