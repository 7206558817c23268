/** Majorities, written once more and differently: the oracle of a simulation must not believe the code it checks. */

import type { Configuration, NodeId } from "../raft/types.ts";

export function majorityHolds(configuration: Configuration, holds: (id: NodeId) => boolean): boolean {
  return [configuration.voters, configuration.outgoing].every((voters) => {
    if (voters.length === 0) return true;
    let balance = 0;
    for (const id of voters) balance += holds(id) ? 1 : -1;
    return balance > 0;
  });
}
