/** How moves of the journal are written into commands and found in the state: as two settings (docs/migration.md). */

import type { MoveArrival, MoveMark, MoveMarks } from "../journal/migration.ts";
import type { Command, CommandResult } from "../namespace/command.ts";
import { decodeCommand, encodeCommand, isKind } from "../namespace/command-codec.ts";
import type { Namespace } from "../namespace/namespace.ts";

const markKey = "journal.move";
const arrivalKey = "journal.moved";

export class JournalMarks implements MoveMarks {
  readonly #namespace: Namespace;

  constructor(namespace: Namespace) {
    this.#namespace = namespace;
  }

  read(payload: Uint8Array): MoveMark | undefined {
    if (!isKind(payload, "set-setting")) return undefined;
    const command = decodeCommand(payload) as Extract<Command, { kind: "set-setting" }>;
    return command.key === markKey && command.value !== null ? (JSON.parse(command.value) as MoveMark) : undefined;
  }

  encode(mark: MoveMark): Uint8Array {
    return this.#encode(markKey, mark);
  }

  encodeArrival(arrival: MoveArrival): Uint8Array {
    return this.#encode(arrivalKey, arrival);
  }

  newest(): MoveMark | undefined {
    return this.#setting<MoveMark>(markKey);
  }

  newestArrival(): MoveArrival | undefined {
    return this.#setting<MoveArrival>(arrivalKey);
  }

  /** At the state's own time: it does not pass by a move. */
  #encode(key: string, value: MoveMark | MoveArrival): Uint8Array {
    return encodeCommand({ kind: "set-setting", key, value: JSON.stringify(value), timeMs: this.#namespace.nowMs });
  }

  #setting<T>(key: string): T | undefined {
    const value = this.#namespace.documents.setting(key);
    return value === undefined ? undefined : (JSON.parse(value) as T);
  }
}

/** Of a command behind the mark: its client asks again, and finds the new journal. */
export const voidByMove: CommandResult = {
  ok: false,
  error: {
    code: "not-leader",
    message: "the cluster moves to another journal: ask again in a moment",
    retryable: true,
    outcome: "none",
  },
};
