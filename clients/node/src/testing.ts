/**
 * For tests against a real sidecar in `serve --dev`, or a fake one: its clock goes when you say so.
 *
 * @packageDocumentation
 */

import { command } from './calls.js';
import type { Sidecar } from './client.js';
import { FakeSidecar } from './fake/index.js';
import { type AdvanceResponse, TestClockService } from './proto/sessionsidecar/dev/v1/test_clock_service_pb.js';
import { timestampDate } from '@bufbuild/protobuf/wkt';
import type { Milliseconds } from './words.js';

/** Moves the sidecar's clock forward and answers its new time. All that became due is then in the event log. */
export async function advance(sidecar: Sidecar, duration: Milliseconds): Promise<Date> {
  if (sidecar instanceof FakeSidecar) return sidecar.advance(duration);
  const call = command(TestClockService.method.advance, { duration }, ({ serverTime }: AdvanceResponse) => timestampDate(serverTime!), false);
  // A year of a thousand sessions takes longer than a touch.
  return sidecar.withOptions({ deadline: 60_000 }).run(call);
}
