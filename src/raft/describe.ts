/** Messages and entries in one line each, for transcripts, logs and failed assertions. */

import { unreachable } from "../base/assert.ts";
import { decodeConfiguration, describeConfiguration } from "./membership.ts";
import type { Entry, Message, RaftStatus, Ready } from "./types.ts";

/** `2/7 "x"`: term, index, payload. */
export function describeEntry({ index, term, kind, payload }: Entry): string {
  const what =
    kind === "configuration"
      ? describeConfiguration(decodeConfiguration(payload))
      : payload.length === 0
        ? "no-op"
        : JSON.stringify(new TextDecoder().decode(payload.subarray(0, 32)));
  return `${term}/${index} ${what}`;
}

/** `1→2 append term=3 prev=2/6 commit=6 [3/7 "x"]`. */
export function describeMessage(message: Message): string {
  const { from, to, type, term } = message;
  const details = detailsOf(message);
  return `${from}→${to} ${type} term=${term}${details === "" ? "" : ` ${details}`}`;
}

/** `2 follower term=3 leader=1 last=3/7 stable=6 commit=5 applied=5 (1 2 3)`. */
export function describeStatus(status: RaftStatus): string {
  const { id, role, term, leader, lastTerm, lastIndex, stableIndex, commitIndex, appliedIndex } = status;
  const log = `last=${lastTerm}/${lastIndex} stable=${stableIndex} commit=${commitIndex} applied=${appliedIndex}`;
  const members = describeConfiguration(status.configuration);
  return `${id} ${role} term=${term} leader=${leader ?? "nobody"} ${log} ${members}`;
}

export function describeReady(ready: Ready): string[] {
  const lines: string[] = [];
  const { roleChange, unknown, append, install } = ready;
  if (roleChange !== undefined) {
    const leader = roleChange.leader === undefined ? "nobody" : roleChange.leader;
    lines.push(`role ${roleChange.role} term=${roleChange.term} leader=${leader}`);
  }
  if (unknown !== undefined) lines.push(`unknown ${unknown.term}/${unknown.firstIndex}..${unknown.lastIndex}`);
  if (append !== undefined) {
    const { hardState, truncateFrom, entries, token } = append;
    const parts = [
      ...(hardState === undefined ? [] : [`term=${hardState.term} vote=${hardState.vote ?? "nobody"}`]),
      ...(truncateFrom === undefined ? [] : [`truncate from ${truncateFrom}`]),
      ...(entries.length === 0 ? [] : [`[${entries.map(describeEntry).join(", ")}]`]),
    ];
    lines.push(`write #${token}${parts.length === 0 ? "" : ` ${parts.join(" ")}`}`);
  }
  if (install !== undefined) lines.push(`install snapshot ${install.term}/${install.index}`);
  if (ready.snapshotWanted) lines.push("wants a snapshot to send");
  if (ready.committed.length > 0) lines.push(`apply [${ready.committed.map(describeEntry).join(", ")}]`);
  for (const { context, index, via } of ready.reads) lines.push(`read ${context} at ${index} by ${via}`);
  for (const { context, reason } of ready.refusedReads) lines.push(`read ${context} refused: ${reason}`);
  for (const message of ready.messages) lines.push(`send ${describeMessage(message)}`);
  return lines;
}

function detailsOf(message: Message): string {
  switch (message.type) {
    case "pre-vote":
      return `last=${message.lastTerm}/${message.lastIndex}`;
    case "vote":
      return `last=${message.lastTerm}/${message.lastIndex}${message.transfer ? " transfer" : ""}`;
    case "pre-vote-reply":
    case "vote-reply":
      return message.granted ? "granted" : "refused";
    case "append": {
      const { prevTerm, prevIndex, commit, entries } = message;
      return `prev=${prevTerm}/${prevIndex} commit=${commit} [${entries.map(describeEntry).join(", ")}]`;
    }
    case "append-ok":
      return `index=${message.index}`;
    case "append-reject":
      return `prev=${message.prevIndex} hint=${message.hintTerm}/${message.hintIndex}`;
    case "heartbeat":
      return `round=${message.round} commit=${message.commit}`;
    case "heartbeat-ok":
      return `round=${message.round}`;
    case "commit":
      return `commit=${message.commit}`;
    case "snapshot": {
      const { term, index, configuration } = message.snapshot;
      return `${term}/${index} ${describeConfiguration(configuration)}`;
    }
    case "read":
      return `request=${message.request}`;
    case "read-reply":
      return `request=${message.request} ${message.index === 0 ? "refused" : `index=${message.index}`}`;
    case "stale-term":
    case "timeout-now":
      return "";
    default:
      return unreachable(message);
  }
}
