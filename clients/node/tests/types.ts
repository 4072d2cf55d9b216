// Compiled by package.test.mjs, never run: what the package is to a program in TypeScript, and that its words are those of the .proto.

import { type Created, type CreateOptions, type Ended, type HistoryEntry, type Live, Sidecar, SidecarAdmin, type Touched, type Unknown, type Unreachable } from 'session-sidecar';
import type * as words from 'session-sidecar';
import { FakeSidecar } from 'session-sidecar/fake';
import { advance } from 'session-sidecar/testing';
import type * as pb from 'session-sidecar/proto';
import type * as admin from 'session-sidecar/proto-admin';

type Same<One, Other> = [One] extends [Other] ? ([Other] extends [One] ? true : false) : false;
const same = <One, Other>(..._: Same<One, Other> extends true ? [] : ['they differ', Exclude<One, Other>, Exclude<Other, One>]) => {};

const sidecar = new Sidecar({ fail: 'open' });
same<Awaited<ReturnType<typeof sidecar.touch>>, Touched | Ended | Unknown | Unreachable>();
same<Awaited<ReturnType<typeof sidecar.create>>, Created>();
// @ts-expect-error an id is a string
sidecar.touch(3);
// @ts-expect-error durations are milliseconds
sidecar.touch('id', { idleFor: '3s' });
// @ts-expect-error there is no such option
sidecar.touch('id', { hurry: true });
// @ts-expect-error a ref is no id
sidecar.touch({ sessionRef: 'ref' });
// @ts-expect-error nobody can command it
sidecar.end('id', { reason: 'IDLE_TIMEOUT' });
// @ts-expect-error it is not for users
sidecar.transport;

export async function live(given: Sidecar): Promise<string> {
  for await (const event of given.watch({ everything: true })) if (event.kind === 'ended') console.log(event.end.reason satisfies words.EndReason | undefined);
  const answer = await given.touch('id');
  switch (answer.kind) {
    case 'live': return answer.rule;
    case 'ended': return answer.successorRef;
    case 'unknown': return answer.sessionRef;
    case 'unreachable': return answer.code;
  }
}

const fake = new FakeSidecar({ policy: { idle_timeout: '15m', presence: { leave_grace: 9_000 }, rules: [{ name: 'a', verdict: 'count', path: '/a' }] } });
export const alike: Sidecar = fake;
export const desk: SidecarAdmin = fake.admin();
advance(fake.withOptions({ fail: 'open' }), 1);
// @ts-expect-error there is no such key
new FakeSidecar({ policy: { idle_timout: '15m' } });

// ---- The words are those of the .proto: all of them, and no others ----

type Fields<M> = Exclude<keyof M, '$typeName' | '$unknown'>;
type Words<E> = Exclude<keyof E, 'UNSPECIFIED'> | 'OTHER';

same<keyof words.Status, Fields<pb.SessionStatus>>();
same<keyof words.Session, Fields<pb.Session>>();
same<keyof words.SessionHold, Fields<pb.SessionHold>>();
same<keyof words.End, Fields<pb.SessionEnd>>();
same<keyof words.Created, Fields<pb.CreateResponse>>();
same<keyof words.Rotated, Fields<pb.RotateResponse>>();
same<keyof words.Extended, Fields<pb.ExtendResponse>>();
same<keyof words.Held, Fields<pb.HoldResponse>>();
same<keyof words.Released, Fields<pb.ReleaseResponse>>();
same<keyof words.EndAnswer, Fields<pb.EndResponse>>();
same<Exclude<keyof Touched, keyof Live> | 'status', Fields<pb.TouchResponse>>();
same<keyof words.Hints, Fields<pb.TouchHints>>();
same<keyof CreateOptions | 'tenant', Fields<pb.CreateRequest>>();
same<keyof words.Touch | 'tenant', Fields<pb.TouchRequest>>();
same<keyof words.ExtendOptions | 'tenant' | 'sessionId', Fields<pb.ExtendRequest>>();
same<keyof words.HoldOptions | 'tenant' | 'sessionId' | 'holdId', Fields<pb.HoldRequest>>();
same<keyof words.RotateOptions | 'tenant' | 'sessionId', Fields<pb.RotateRequest>>();
same<keyof words.EndOptions | 'tenant' | 'sessionId', Fields<pb.EndRequest>>();
same<keyof words.EventSession, Fields<pb.EventSession>>();
same<Exclude<keyof words.SnapshotEvent, 'kind' | 'emitTime'>, Fields<pb.Snapshot>>();
same<Exclude<keyof words.SnapshotEndEvent, 'kind' | 'emitTime'>, Fields<pb.SnapshotEnd>>();
same<Exclude<keyof words.WarningEvent, 'kind' | 'emitTime'>, Fields<pb.Warning>>();
same<Exclude<keyof words.ClearedEvent, 'kind' | 'emitTime'>, Fields<pb.Cleared>>();
same<Exclude<keyof words.EndedEvent, 'kind' | 'emitTime'>, Fields<pb.Ended>>();
same<Exclude<words.Event['kind'], 'beginAnew'> | 'heartbeat' | undefined, pb.WatchExpiryResponse['message']['case']>();
same<keyof words.SessionFilter | 'tenant', Fields<admin.SessionFilter>>();
same<keyof words.SessionsEnded, Fields<admin.EndSessionsResponse>>();
same<keyof words.Explained, Fields<admin.ExplainSessionResponse>>();
same<keyof words.SessionExplanation, Fields<admin.SessionExplanation>>();
same<keyof words.RuleTally, Fields<admin.RuleTally>>();
same<keyof words.PolicyInfo, Fields<admin.PolicyInfo>>();
same<keyof words.Policies, Fields<admin.ListPoliciesResponse>>();
same<keyof words.Stats, Fields<admin.GetStatsResponse>>();
same<HistoryEntry['kind'] | undefined, admin.HistoryEntry['entry']['case']>();
same<words.SessionState, Words<typeof pb.SessionState>>();
same<words.Limit, Words<typeof pb.Limit>>();
same<words.KnowledgeScope, Words<typeof pb.KnowledgeScope>>();
same<words.TouchResult, Words<typeof pb.TouchResult>>();
same<words.HoldClamp, Words<typeof pb.HoldClamp>>();
same<words.HoldKind, Words<typeof pb.HoldKind>>();
same<words.EndReason, Words<typeof pb.EndReason>>();
same<words.Actor, Words<typeof pb.Actor>>();
same<words.ClearedCause, Words<typeof pb.ClearedCause>>();
same<words.Activity | 'OTHER', Words<typeof pb.Activity>>();
same<words.PageVisibility | 'OTHER', Words<typeof pb.PageVisibility>>();
same<words.EventKind | 'OTHER', Words<typeof pb.EventKind>>();
