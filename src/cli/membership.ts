/**
 * Joining, step by step, by whoever drives it: an operator's `cluster add` or the new master itself. Every step may be
 * repeated, so a join that broke off is ended by asking for it again.
 */

import type { MasterStatus } from "../base/cluster.ts";
import { HeadpondError } from "../base/errors.ts";
import type { MasterId } from "../base/ids.ts";
import type { Membership } from "../client/membership.ts";
import type { Clock } from "../io/clock.ts";

export type JoinParts = {
  readonly membership: Membership;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Is told how it goes, now and then. */
  readonly note: (text: string) => void;
};

const pollMs = 100;
/** How often it is said how far the learner is. */
const noteMs = 2000;
/** A learner that is so near is level in the time that the promotion takes. */
const levelEntries = 1000;

/** False: it is a member at this address already. */
export async function joinAsLearner(parts: JoinParts, id: MasterId, address: string): Promise<boolean> {
  const added = await parts.membership.add(id, address, { signal: parts.signal });
  if (added) parts.note(`${id} at ${address} joins as a learner`);
  return added;
}

/** Waits as long as it takes. False: it votes already. */
export async function promoteWhenLevel(parts: JoinParts, id: MasterId): Promise<boolean> {
  const member = await waitUntilLevel(parts, id);
  if (member.voter) return false;
  return parts.membership.promote(id, { signal: parts.signal });
}

/** Until the learner has nearly all; it goes on by itself. Rejects with `not-found` when it is no member any more. */
export async function waitUntilLevel(parts: JoinParts, id: MasterId): Promise<MasterStatus> {
  const { membership, clock, signal, note } = parts;
  let notedMs = clock.monotonicMs();
  for (;;) {
    const { members, commitIndex } = await membership.members({ signal });
    const member = members.find((candidate) => candidate.id === id);
    if (member === undefined) {
      const known = members.map((candidate) => candidate.id).join(", ");
      throw new HeadpondError("not-found", `${id} is no member of the cluster: there are ${known}`);
    }
    if (member.voter || (member.reachable === true && member.lagEntries <= levelEntries)) return member;
    if (clock.monotonicMs() - notedMs >= noteMs) {
      notedMs = clock.monotonicMs();
      note(
        member.reachable === true
          ? `${id} has ${member.appliedIndex} of ${commitIndex} entries`
          : `${id} cannot be reached at ${member.journalAddress}: is it running?`,
      );
    }
    await clock.sleep(pollMs, signal);
  }
}
