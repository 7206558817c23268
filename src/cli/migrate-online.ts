/** `journal migrate` without `--dir`: moves a running cluster to another journal (docs/migration.md). */

import { randomBytes } from "node:crypto";
import { isIP } from "node:net";
import { type LoadedConfig, parseHostPort, type SettingKey } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import type { JournalType, MoveSettings } from "../journal/migration.ts";
import type { Context } from "./context.ts";
import { parsePairs } from "./fs-change.ts";
import { MoveDriver, type MoveTargetMaster } from "./move-driver.ts";

export async function migrateOnline(context: Context, flags: Readonly<Record<string, unknown>>): Promise<number> {
  const { clock, signal, output } = context;
  const isAbort = flags["abort"] === true;
  const to = isAbort ? "local" : typeOf(flags["to"]);
  const without = (flags["without"] as readonly string[] | undefined) ?? [];
  const { members } = await context.client().membership.members({ signal });
  const addresses = addressesOf(context.loadConfig(), flags);
  const masters = members.map(({ id, address: rpc }): MoveTargetMaster => {
    const address = to === "raft" && !isAbort ? (addresses[id] ?? "") : "";
    if (to === "raft" && !isAbort && address === "" && !without.includes(id)) {
      throw new HeadpondError(
        "invalid",
        `--to raft needs the address of ${id}'s journal: --member ${id}=HOST:PORT, or journal.raft.members`,
      );
    }
    return { id, rpc, address, settings: isAbort ? {} : settingsFor(context.loadConfig(), to, address) };
  });
  const driver = new MoveDriver({
    to,
    masters,
    without,
    newMove: () => randomBytes(8).toString("hex"),
    clock,
    signal,
    note: (text) => output.note(text),
  });
  try {
    if (isAbort) {
      const move = await driver.abort();
      output.result({ aborted: move ?? null }, () =>
        output.line(move === undefined ? "no move is prepared: nothing to do" : `the move ${move} was taken back`),
      );
      return 0;
    }
    const moved = await driver.run();
    output.result(moved, () => {
      output.line(`the journal is ${moved.to} from entry ${moved.index + 1} on; ${moved.leader} leads`);
      output.line(`all of ${moved.masters.join(", ")} had the same state there (digest ${moved.digest})`);
      output.line(
        `next: set journal.type to ${moved.to} in each master's configuration; until then they warn at every start`,
      );
    });
    return 0;
  } finally {
    await driver.close();
  }
}

function typeOf(given: unknown): JournalType {
  if (given === "local" || given === "raft" || given === "zookeeper") return given;
  throw new HeadpondError("invalid", `--to ${String(given)}: write local, raft or zookeeper`);
}

function addressesOf(
  { raw }: LoadedConfig,
  flags: Readonly<Record<string, unknown>>,
): Readonly<Record<string, string>> {
  const given = parsePairs((flags["member"] as readonly string[] | undefined) ?? []);
  return { ...(raw["journal.raft.members"] as Record<string, string>), ...given };
}

/** What this command's configuration says of the new journal, beside defaults. */
function settingsFor({ raw, sources }: LoadedConfig, to: JournalType, address: string): MoveSettings {
  const settings: Record<string, unknown> = {};
  for (const key of Object.keys(raw) as SettingKey[]) {
    if (!key.startsWith(`journal.${to}.`) || sources[key] === "default" || key === "journal.raft.members") continue;
    settings[key] = raw[key];
  }
  if (to === "raft" && settings["journal.raft.listen"] === undefined) {
    const { host, port } = parseHostPort(address);
    settings["journal.raft.listen"] = `${isIP(host) === 0 ? "0.0.0.0" : host}:${port}`;
  }
  return settings;
}
