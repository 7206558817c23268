/** What a master says of itself to whoever drives a move. */

import type { StateMachine } from "./journal.ts";
import type { MovedFile, MoveMark, MoveMarks, MoveReport } from "./migration.ts";
import type { MoveCopy } from "./move-copy.ts";
import type { MoveGate } from "./move-gate.ts";
import type { JournalPlace } from "./switching-options.ts";

export type MoveReportParts = {
  readonly id: string;
  readonly machine: Pick<StateMachine<unknown>, "applied">;
  readonly marks: Pick<MoveMarks, "newest">;
  readonly place: JournalPlace;
  readonly gate: Pick<MoveGate<unknown>, "cut">;
  readonly moved: MovedFile | undefined;
  readonly leads: boolean;
  readonly copy: MoveCopy | undefined;
  /** A copy that lacks no more entries than this is level. */
  readonly levelEntries: number;
  readonly leftBehind: string | undefined;
};

export function reportOf(parts: MoveReportParts): MoveReport {
  const { id, machine, marks, place, gate, leads, copy, leftBehind } = parts;
  const plan = copy?.plan;
  const arrived = place.generation > 0 ? marks.newest() : undefined;
  const cut = gate.cut ?? parts.moved;
  return {
    id,
    type: place.type,
    generation: place.generation,
    leads,
    phase: phaseOf(parts, arrived !== undefined),
    move: plan?.move ?? arrived?.move,
    from: plan === undefined ? arrived?.from : place.type,
    to: plan?.to ?? arrived?.to,
    appliedIndex: machine.applied.index,
    copiedIndex: copy?.copiedIndex ?? 0,
    member: plan === undefined ? undefined : { address: plan.address, incarnation: plan.incarnation },
    cut: cut === undefined ? undefined : { index: cut.index, digest: cut.digest },
    problem: leftBehind ?? copy?.problem,
  };
}

function phaseOf(
  { machine, gate, copy, levelEntries, leftBehind }: MoveReportParts,
  hasMoved: boolean,
): MoveReport["phase"] {
  if (leftBehind !== undefined) return "left-behind";
  if (gate.cut !== undefined) return "moving";
  if (copy === undefined) return hasMoved ? "moved" : "none";
  const lag = machine.applied.index - copy.copiedIndex;
  return copy.problem === undefined && lag <= levelEntries ? "ready" : "preparing";
}

/** What a master says that is no part of the cluster any more. */
export function leftBehindBy({ to, move, members }: MoveMark, id: string): string {
  const where = `the cluster has moved to a ${to} journal with ${Object.keys(members).join(", ")} (move ${move}), and ${id} is not among them`;
  if (to === "local") return `${where}: stop it`;
  const anew = to === "raft" ? ", a new master.id and --join HOST:PORT" : "";
  return `${where}: stop it, empty its directory, and start it with the configuration of the others${anew}`;
}
