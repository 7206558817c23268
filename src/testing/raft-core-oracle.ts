/**
 * Knows what really happened in a simulated cluster, and compares every member with it: one leader per term, equal logs
 * where terms are equal, nothing committed that is not durable on a quorum, nothing committed that changes, leaders that
 * have all of it, states that are the same, reads that are not stale, and no trace of what was refused.
 */

import { isJoint } from "../raft/membership.ts";
import type { Raft } from "../raft/raft.ts";
import type { Configuration, Entry, NodeId } from "../raft/types.ts";
import { majorityHolds } from "./raft-core-quorum.ts";

export class Violation extends Error {
  override readonly name = "Violation";
}

/** `leaderTerm`: in which it was committed, which may be later than the entry's own. */
type Committed = { readonly term: number; readonly state: number; readonly leaderTerm: number };

export class RaftOracle {
  /** Entry i is at place i - 1. */
  readonly #committed: Committed[] = [];
  /** By index and term. */
  readonly #entries = new Map<number, { readonly hash: number; readonly previousTerm: number }>();
  readonly #leaders = new Map<number, NodeId>();
  readonly #refused = new Set<number>();
  jointCount = 0;

  get commitIndex(): number {
    return this.#committed.length;
  }

  get leaderCount(): number {
    return this.#leaders.size;
  }

  stateAt(index: number): number {
    return index === 0 ? 0 : this.#at(index).state;
  }

  /** The client was told that this payload will never be anywhere. */
  refused(payload: Uint8Array): void {
    this.#refused.add(payloadNumber(payload));
  }

  leads(id: NodeId, raft: Raft): void {
    const other = this.#leaders.get(raft.term) ?? id;
    if (other !== id) throw new Violation(`election safety: ${other} and ${id} both lead term ${raft.term}`);
    this.#leaders.set(raft.term, id);
    // What was committed in later terms is none of its business: its votes may have come late.
    const last = this.#committed.findLastIndex(({ leaderTerm }) => leaderTerm < raft.term) + 1;
    const term = raft.termAt(last);
    if (last > 0 && term !== this.#at(last).term) {
      throw new Violation(
        `leader completeness: ${id} leads term ${raft.term}, has ${term}/${last}, but ${this.#at(last).term}/${last} is committed`,
      );
    }
  }

  /** Some member has this entry in its log. */
  appended(id: NodeId, entry: Entry, previousTerm: number | undefined): void {
    const hash = entryHash(entry);
    const key = entry.index * 2 ** 24 + entry.term;
    const known = this.#entries.get(key);
    if (known === undefined) {
      this.#entries.set(key, { hash, previousTerm: previousTerm ?? -1 });
      if (entry.kind === "command" && entry.payload.length > 0 && this.#refused.has(payloadNumber(entry.payload))) {
        throw new Violation(`${id} appended ${entry.term}/${entry.index}, which had been refused`);
      }
    } else if (known.hash !== hash || (previousTerm !== undefined && known.previousTerm !== previousTerm)) {
      throw new Violation(`log matching: two entries ${entry.term}/${entry.index}, one at ${id}`);
    }
  }

  /** A member knows that entries up to its commit index are committed. `holds`: whether a member has one on its disk. */
  committed(
    id: NodeId,
    raft: Raft,
    fromIndex: number,
    configuration: Configuration,
    holds: (id: NodeId, index: number, term: number) => boolean,
  ): void {
    for (let index = fromIndex; index <= raft.commitIndex; index++) {
      const term = raft.termAt(index);
      if (term === undefined) continue;
      const known = this.#committed[index - 1];
      if (known !== undefined) {
        if (known.term !== term) {
          throw new Violation(
            `state-machine safety: ${id} commits ${term}/${index}, but ${known.term}/${index} was committed`,
          );
        }
        continue;
      }
      if (index !== this.commitIndex + 1) throw new Violation(`${id} commits ${index} before ${this.commitIndex + 1}`);
      const hash = this.#entries.get(index * 2 ** 24 + term)?.hash;
      if (hash === undefined) throw new Violation(`${id} commits ${term}/${index}, which nobody wrote`);
      this.#committed.push({ term, leaderTerm: raft.term, state: nextState(this.stateAt(index - 1), index, hash) });
    }
    const last = raft.commitIndex;
    const term = raft.termAt(last) ?? 0;
    if (raft.role === "leader" && last >= fromIndex) {
      if (isJoint(configuration)) this.jointCount++;
      if (!majorityHolds(configuration, (voter) => holds(voter, last, term))) {
        throw new Violation(`durability: ${id} commits ${term}/${last}, which is not on the disks of a quorum`);
      }
    }
  }

  applied(id: NodeId, index: number, state: number): void {
    if (state !== this.stateAt(index)) throw new Violation(`state-machine safety: state of ${id} differs at ${index}`);
  }

  /** A read that was asked for when `asOf` was committed is answered with `index`. */
  read(id: NodeId, index: number, asOf: number, via: string): void {
    if (index < asOf)
      throw new Violation(`stale read: ${id} reads at ${index} by ${via}, but ${asOf} was committed before`);
  }

  #at(index: number): Committed {
    const known = this.#committed[index - 1];
    if (known === undefined) throw new Violation(`entry ${index} is not committed`);
    return known;
  }
}

export function nextState(state: number, index: number, hash: number): number {
  return (Math.imul(state ^ index, 0x9e3779b1) ^ Math.imul(hash, 0x85ebca6b)) >>> 0;
}

export function entryHash({ kind, payload }: Entry): number {
  let hash = kind === "command" ? 17 : 23;
  for (const byte of payload) hash = (Math.imul(hash, 31) + byte) | 0;
  return hash >>> 0;
}

/** A payload is its number and nothing of interest behind. */
export function payloadOf(number: number, bytes: number): Uint8Array {
  const payload = new Uint8Array(Math.max(4, bytes));
  new DataView(payload.buffer).setUint32(0, number);
  return payload;
}

export function payloadNumber(payload: Uint8Array): number {
  return new DataView(payload.buffer, payload.byteOffset).getUint32(0);
}
