/** What is recorded in a journal, for eyes: commands without the secrets that they carry. */

import type { Command } from "../namespace/command.ts";
import { decodeCommand } from "../namespace/command-codec.ts";
import { decodeConfiguration } from "../raft/membership.ts";

export function describeConfigurationPayload(payload: Uint8Array): object {
  return { kind: "configuration", ...decodeConfiguration(payload) };
}

export function describePayload(payload: Uint8Array): object {
  return payload.length === 0 ? { kind: "no-op" } : withoutSecrets(decodeCommand(payload));
}

/** The journal keeps the secrets of mounts, which every master needs; a dump is for eyes. */
function withoutSecrets(command: Command): Command {
  if (command.kind !== "mount") return command;
  const hidden = Object.entries(command.options).map(([name, value]) => [
    name,
    command.secretOptions.includes(name) ? "***" : value,
  ]);
  return { ...command, options: Object.fromEntries(hidden) as Record<string, string> };
}
