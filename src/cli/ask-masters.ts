/**
 * The cluster, of which each master is asked about itself whenever it can be reached: the leader knows of the others only what
 * they reported last.
 */

import type { ClusterStatus, MasterStatus } from "../base/cluster.ts";
import { connect } from "../client/client.ts";
import type { Context } from "./context.ts";

/** A master that hangs does not hold up the answer for longer. */
export const askTimeoutMs = 1000;

/** The cluster as the master of the highest term sees it, with each master's own word on itself where it answers. */
export async function askMasters(context: Context): Promise<ClusterStatus> {
  const { signal } = context;
  const first = await context.client().cluster({ signal });
  if (first.masters.length < 2) return first;
  const answers = new Map<string, ClusterStatus>();
  await Promise.all(
    first.masters.map(async ({ id, address }) => {
      const client = connect({ masters: [address], follow: false, timeoutMs: askTimeoutMs });
      try {
        answers.set(id, await client.cluster({ signal }));
      } catch {
        // Its row says that it cannot be reached.
      } finally {
        await client.close();
      }
    }),
  );
  // A leader that was cut off goes on saying that it leads: whoever has seen a higher term knows better. In one term the leader
  // knows best: a master that was removed while it was away goes on with what it knew.
  const leading = [...answers].filter(([id, { masters }]) => isLeader(masters, id)).map(([, status]) => status);
  const newest = [...leading, ...answers.values(), first].reduce((a, b) => (b.term > a.term ? b : a));
  const masters = newest.masters.map((known) => {
    const own = answers.get(known.id)?.masters.find(({ id }) => id === known.id);
    return own === undefined ? { ...known, reachable: false } : { ...known, ...own, role: known.role };
  });
  return { ...newest, masters };
}

function isLeader(masters: readonly MasterStatus[], id: string): boolean {
  return masters.some((master) => master.id === id && master.role === "leader");
}
