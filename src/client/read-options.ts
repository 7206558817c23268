/** How new a read must be, who answers it, and what is said of the answer. */

import type { ReadFrom } from "../rpc/cluster-client.ts";
import type { Consistency, ReadInfo } from "../rpc/master-service.ts";
import type { CallOptions } from "./master-calls.ts";

export type ReadOptions = CallOptions & {
  /**
   * `linearizable` (default): all that was acknowledged before is seen. `stale`: the state of at most `maxStaleMs` ago. `local`: what the
   * master that is asked has, however old.
   */
  readonly consistency?: Consistency;
  /** Of `stale`. Default: one second. */
  readonly maxStaleMs?: number;
  /**
   * Which master answers: `leader` (default), `any`, or one by its id. What only a leader can answer goes to the leader also with `any`.
   */
  readonly from?: ReadFrom;
  /** Is told how old the state was that answered a `stale` or `local` read. */
  readonly onReadInfo?: (info: ReadInfo) => void;
};

/** The fields of a request that say how new it must be. */
export function readFields({ consistency, maxStaleMs }: ReadOptions): {
  consistency?: Consistency;
  maxStaleMs?: number;
} {
  if (consistency === undefined && maxStaleMs === undefined) return {};
  return {
    ...(consistency === undefined ? {} : { consistency }),
    ...(maxStaleMs === undefined ? {} : { maxStaleMs }),
  };
}

/** Hands on what a reply says of itself. */
export function told<Reply extends { readonly read?: ReadInfo }>(reply: Reply, options: ReadOptions): Reply {
  if (reply.read !== undefined) options.onReadInfo?.(reply.read);
  return reply;
}
