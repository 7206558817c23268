/** The steps of a move of the journal (docs/migration.md), as whoever drives it asks each master for them. */

import { HeadpondError } from "../base/errors.ts";
import type { JournalMoves } from "../journal/journal.ts";
import type { MoveMember, MoveReport, MoveSettings } from "../journal/migration.ts";
import type { MasterMethods } from "../rpc/master-service.ts";
import type { ReplyOf, RequestOf } from "../rpc/method.ts";

export async function moveStep(
  moves: JournalMoves | undefined,
  request: RequestOf<MasterMethods["journalMove"]>,
): Promise<ReplyOf<MasterMethods["journalMove"]>> {
  if (moves === undefined) throw new HeadpondError("unsupported", "the journal of this master cannot move");
  const { step, move = "", to, address = "", settings = "{}", members = "{}" } = request;
  switch (step) {
    case "report":
      return replyOf(moves.report());
    case "prepare":
      if (to === undefined || !/^[0-9a-f]{8,32}$/.test(move)) {
        throw new HeadpondError(
          "invalid",
          `a move "${move}" to ${to}: give it an id of 8 to 32 hexadecimal digits and a type`,
        );
      }
      return replyOf(await moves.prepare({ move, to, address, settings: parse<MoveSettings>(settings) }));
    case "commit":
      return replyOf(await moves.commit(move, parse<Record<string, MoveMember>>(members)));
    case "abort":
      return replyOf(await moves.abort(move));
    default:
      return step satisfies never;
  }
}

function parse<T extends object>(text: string): T {
  try {
    const value = JSON.parse(text) as unknown;
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as T;
  } catch {
    // Said below.
  }
  throw new HeadpondError("invalid", `${text.slice(0, 80)} is no JSON object`);
}

function replyOf(report: MoveReport): ReplyOf<MasterMethods["journalMove"]> {
  const { id, type, generation, leads, phase, appliedIndex, copiedIndex, move, from, to, member, cut, problem } =
    report;
  return {
    ...{ id, type, generation, leads, phase, appliedIndex, copiedIndex },
    ...(move === undefined ? {} : { move }),
    ...(from === undefined ? {} : { from }),
    ...(to === undefined ? {} : { to }),
    ...(member === undefined ? {} : { member }),
    ...(cut === undefined ? {} : { cut: { index: cut.index, digest: cut.digest } }),
    ...(problem === undefined ? {} : { problem }),
  };
}
