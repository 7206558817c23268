/** What a Raft journal answers when it cannot do what it was asked for now. */

import { HeadpondError } from "../base/errors.ts";
import { formatBytes } from "../base/units.ts";

const details = { retryAfterMs: 100 };

export function overloadedProposals(count: number, bytes: number): HeadpondError {
  const waiting = `the journal has ${count} commands (${formatBytes(bytes)}) that are not answered`;
  return new HeadpondError("overloaded", `${waiting}: retry later`, { details });
}

export function overloadedReads(count: number): HeadpondError {
  return new HeadpondError("overloaded", `${count} reads wait for the leader: retry later`, { details });
}

export function handingOver(): HeadpondError {
  return new HeadpondError("not-leader", "leadership is being handed over: ask again in a moment");
}

export function slowLeader(): HeadpondError {
  return new HeadpondError("timeout", "the leader did not answer a read in time: ask again");
}

export function fullMajority(): HeadpondError {
  const message = "the disks of most masters are full: free some space there, the journal then goes on by itself";
  return new HeadpondError("no-space", message);
}

export function fullDisk(code: "no-space" | "unknown-outcome"): HeadpondError {
  const fate = code === "no-space" ? "free some space, the journal then goes on by itself" : "it may be applied or not";
  return new HeadpondError(code, `the disk of this master became full while it had the command: ${fate}`);
}

export function wrongSize(payloadBytes: number, maxBytes: number): HeadpondError {
  return new HeadpondError("invalid", `a command of ${payloadBytes} bytes: between 1 and ${maxBytes} are allowed`);
}

/** `failure`: what ended the journal, if anything did. */
export function closed(failure: HeadpondError | undefined, isStarting: boolean): HeadpondError {
  const why = failure?.message ?? (isStarting ? "not started yet" : "closed");
  return new HeadpondError("unavailable", `the journal takes no commands: ${why}`);
}
