/**
 * Changes as they happen, without gaps and without repetitions, across reconnects and failovers: after a break it goes on by index, at
 * whatever master answers. When that one does not have the changes any more it ends with `compacted`: then the tree has to be looked at.
 */

import { toHeadpondError } from "../base/errors.ts";
import type { Clock } from "../io/clock.ts";
import type { ReadFrom } from "../rpc/cluster-client.ts";
import { type ChangeEvent, masterService } from "../rpc/master-service.ts";
import type { MasterCalls } from "./master-calls.ts";

export type WatchOptions = {
  /** Changes from this index on; absent: from now. */
  readonly fromIndex?: number;
  readonly signal?: AbortSignal;
  /** Which master tells. Default: the leader. */
  readonly from?: ReadFrom;
};

const reopenMinMs = 20;
const reopenMaxMs = 1000;

export async function* watchChanges(
  parts: { readonly masters: MasterCalls; readonly clock: Clock },
  path: string,
  options: WatchOptions,
): AsyncGenerator<ChangeEvent, void, undefined> {
  const { masters, clock } = parts;
  const { signal, from } = options;
  const streamOptions = { ...(signal === undefined ? {} : { signal }), ...(from === undefined ? {} : { from }) };
  let next = options.fromIndex;
  let failures = 0;
  for (;;) {
    const request = next === undefined ? { path } : { path, fromIndex: next };
    try {
      for await (const { events, index } of masters.openStream(masterService.methods.watch, request, streamOptions)) {
        failures = 0;
        for (const event of events) if (next === undefined || event.index >= next) yield event;
        next = Math.max(next ?? 0, index + 1);
      }
      return;
    } catch (thrown) {
      const error = toHeadpondError(thrown);
      if (next === undefined || !error.retryable || signal?.aborted === true) throw error;
      const waitMs = Math.min(reopenMaxMs, reopenMinMs * 2 ** Math.min(failures++, 10));
      await clock.sleep(waitMs, signal).catch(() => {});
    }
  }
}
