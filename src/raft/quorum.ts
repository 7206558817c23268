/**
 * Majorities, also of two configurations at once. A quorum of nobody agrees to everything, so that an ordinary
 * configuration is a joint one whose outgoing half is empty.
 */

import type { Configuration, NodeId } from "./types.ts";

type Voters = Pick<Configuration, "voters" | "outgoing">;

/** The highest value that a majority of each half has reached; `Infinity` if nobody votes. */
export function quorumValue({ voters, outgoing }: Voters, valueOf: (id: NodeId) => number): number {
  const incoming = majorityValue(voters, valueOf);
  return outgoing.length === 0 ? incoming : Math.min(incoming, majorityValue(outgoing, valueOf));
}

export type VoteResult = "won" | "lost" | "pending";

export function voteResult({ voters, outgoing }: Voters, votes: ReadonlyMap<NodeId, boolean>): VoteResult {
  const results = [majorityVote(voters, votes), majorityVote(outgoing, votes)];
  if (results.includes("lost")) return "lost";
  return results.includes("pending") ? "pending" : "won";
}

function majorityValue(voters: readonly NodeId[], valueOf: (id: NodeId) => number): number {
  if (voters.length === 0) return Number.POSITIVE_INFINITY;
  const values = voters.map(valueOf).sort((a, b) => b - a);
  // Of three, the second highest; of four, the third.
  return values[Math.floor(values.length / 2)] ?? 0;
}

function majorityVote(voters: readonly NodeId[], votes: ReadonlyMap<NodeId, boolean>): VoteResult {
  const majority = Math.floor(voters.length / 2) + 1;
  const granted = voters.filter((id) => votes.get(id) === true).length;
  const missing = voters.filter((id) => !votes.has(id)).length;
  if (voters.length === 0 || granted >= majority) return "won";
  return granted + missing >= majority ? "pending" : "lost";
}
