/**
 * Applies one command: who asks, whether it was asked before, what it does. Deterministic: it knows no clock, no chance and no
 * order of arrival but the log's. A user's mistake is a result; a throw is a defect of ours or damage of the store.
 */

import { unreachable } from "../base/assert.ts";
import type { ErrorDocument } from "../base/errors.ts";
import { applyPin, applyReplicas, applySetAttributes, applyTtl } from "./apply-attributes.ts";
import {
  applyJobProgress,
  applyPutJob,
  applyRecordRevision,
  applyRemoveJob,
  applySetFeatureLevel,
  applySetSetting,
} from "./apply-documents.ts";
import { applyComplete, applyCreate, applyMkdir, applyRemove, applyRename } from "./apply-files.ts";
import { type Amend, applyFinishIntent, giveUpIntent } from "./apply-intents.ts";
import { applyMount, applySyncEnd, applySyncRows, applyUnmount } from "./apply-mounts.ts";
import { applyExpireTtl, applyReclaim, forgetRequestIds } from "./apply-reclaim.ts";
import { applyCloseSession, applyExpireSessions, applyOpenSession, applyRenewSessions } from "./apply-sessions.ts";
import { type Command, type CommandResult, type Origin, requestIdBytesMax } from "./command.ts";
import { decode } from "./command-codec.ts";
import { fail, quote } from "./failure.ts";
import { featureLevelLimit, requireUnderstood } from "./feature-level.ts";
import { hashBytes, hashHigh, hashLow } from "./hash.ts";
import { requestIdPrefix, requestTimePrefix, rowKey, textKey } from "./keys.ts";
import type { Intent } from "./registry.ts";
import { unacknowledgedMax } from "./session-table.ts";
import type { Tree } from "./tree.ts";

/** Request ids are promised for 10 minutes, so when there are too many, new ones are refused rather than old ones forgotten. */
export const requestIdsMax = 1_000_000;
const sequenceMax = 2 ** 48 - 1;

/** Hears of every command that was carried out, once: not of those that were answered with the result of the first time. */
export interface ApplyObserver {
  /** `intent`: of `finish-intent`, the intent as it was before. */
  applied(index: number, command: Command, result: CommandResult, intent: Intent | undefined): void;
}

/** Of the command that is being applied: one at a time, in one turn. */
let currentObserver: ApplyObserver | undefined;

export function applyPayload(tree: Tree, payload: Uint8Array, observer?: ApplyObserver): CommandResult {
  currentObserver = observer;
  const { command, bodyOffset } = decode(payload);
  const { header } = tree.state;
  // Before anything is changed: whoever cannot follow ends with the state as it was.
  if (command.kind === "set-feature-level" && command.level <= featureLevelLimit) {
    requireUnderstood(command.level, tree.state.featureLevelMax, "a command");
  }
  header.version++;
  if (command.timeMs > header.nowMs) header.nowMs = command.timeMs;
  const { origin, requestId } = command;
  if (origin === undefined && requestId === undefined) return perform(tree, command);
  // The kind counts as an argument, the time and the origin do not: they differ between attempts.
  hashBytes(payload, bodyOffset, payload.length, payload[1] as number);
  const low = hashLow;
  const high = hashHigh;
  if (origin === undefined) return applyWithRequestId(tree, command, requestId as string, low, high);
  return applyInSession(tree, command, origin, low, high);
}

function applyInSession(tree: Tree, command: Command, origin: Origin, low: number, high: number): CommandResult {
  const { sessions, header } = tree.state;
  const { sessionId, sequence, acknowledged } = origin;
  const session = sessions.get(sessionId);
  if (session === undefined) {
    return fail(
      "unknown-outcome",
      `session ${sessionId} has expired: whether request ${sequence} was applied before is not known`,
      {
        sessionExpired: true,
      },
    );
  }
  const stored = session.results.get(sequence);
  if (stored !== undefined) {
    if (stored.hashLow === low && stored.hashHigh === high) return stored.result;
    return fail("invalid", `request ${sequence} of session ${sessionId} came before with other arguments`);
  }
  if (!(sequence > session.acknowledged && sequence <= sequenceMax && acknowledged < sequence)) {
    return fail(
      "invalid",
      `request ${sequence} of session ${sessionId} was acknowledged (up to ${session.acknowledged})`,
    );
  }
  sessions.touch(session);
  session.lastSeenMs = header.nowMs;
  sessions.acknowledge(session, acknowledged);
  if (session.results.size >= unacknowledgedMax) {
    return fail("overloaded", `session ${sessionId} has ${unacknowledgedMax} answers that it did not acknowledge`);
  }
  const { requestId } = command;
  const result =
    requestId === undefined ? perform(tree, command) : applyWithRequestId(tree, command, requestId, low, high);
  sessions.store(session, sequence, low, high, result);
  return result;
}

type RequestRow = { low: number; high: number; timeMs: number; order: number; result: CommandResult };

function applyWithRequestId(tree: Tree, command: Command, requestId: string, low: number, high: number): CommandResult {
  const { rows, header } = tree.state;
  const bytes = Buffer.byteLength(requestId);
  if (bytes === 0 || bytes > requestIdBytesMax)
    return fail("invalid", `a request id has ${bytes} bytes, not 1 to ${requestIdBytesMax}`);
  // Two for one, so that old ones dwindle even if nobody reclaims.
  forgetRequestIds(tree, 2);
  const key = textKey(requestIdPrefix, requestId);
  const known = rows.get(key);
  if (known !== undefined) {
    const row = JSON.parse(known.toString("utf8")) as RequestRow;
    if (row.low === low && row.high === high) return row.result;
    return fail("invalid", `request id ${quote(requestId)} came before with other arguments`);
  }
  if (header.requestIdCount >= requestIdsMax) {
    return fail("overloaded", `${requestIdsMax} request ids of the last 10 minutes are kept already: try again later`);
  }
  const { nowMs: timeMs, version: order } = header;
  const result = perform(tree, command);
  rows.set(key, Buffer.from(JSON.stringify({ low, high, timeMs, order, result } satisfies RequestRow)));
  rows.set(rowKey(requestTimePrefix, timeMs, order), Buffer.from(requestId));
  header.requestIdCount++;
  return result;
}

function amender(tree: Tree): Amend {
  return (intent, result) => {
    const { sessions, rows } = tree.state;
    const session = intent.origin === undefined ? undefined : sessions.get(intent.origin.sessionId);
    if (session !== undefined && intent.origin !== undefined) sessions.amend(session, intent.origin.sequence, result);
    if (intent.requestId === undefined) return;
    const key = textKey(requestIdPrefix, intent.requestId);
    const known = rows.get(key);
    if (known === undefined) return;
    const row = JSON.parse(known.toString("utf8")) as RequestRow;
    rows.set(key, Buffer.from(JSON.stringify({ ...row, result })));
  };
}

const unmountedError: ErrorDocument = {
  code: "unknown-outcome",
  message: "the mount was taken away while the change was under way: the under store may have it or not",
  retryable: false,
  outcome: "unknown",
};

function perform(tree: Tree, command: Command): CommandResult {
  if (currentObserver === undefined) return dispatch(tree, command);
  const intent = command.kind === "finish-intent" ? tree.registry.intent(command.intentId) : undefined;
  const result = dispatch(tree, command);
  currentObserver.applied(tree.state.header.appliedIndex + 1, command, result, intent);
  return result;
}

function dispatch(tree: Tree, command: Command): CommandResult {
  const { state } = tree;
  switch (command.kind) {
    case "create":
      return applyCreate(tree, command);
    case "complete":
      return applyComplete(tree, command);
    case "mkdir":
      return applyMkdir(tree, command);
    case "remove":
      return applyRemove(tree, command);
    case "rename":
      return applyRename(tree, command);
    case "set-attributes":
      return applySetAttributes(tree, command);
    case "pin":
      return applyPin(tree, command);
    case "ttl":
      return applyTtl(tree, command);
    case "replicas":
      return applyReplicas(tree, command);
    case "mount":
      return applyMount(tree, command);
    case "unmount":
      return applyUnmount(tree, command, (id) => {
        const intent = tree.registry.intent(id);
        if (intent !== undefined) giveUpIntent(tree, intent, unmountedError, amender(tree));
      });
    case "sync-rows":
      return applySyncRows(tree, command);
    case "sync-end":
      return applySyncEnd(tree, command);
    case "finish-intent":
      return applyFinishIntent(tree, command, amender(tree));
    case "open-session":
      return applyOpenSession(state, command);
    case "renew-sessions":
      return applyRenewSessions(state, command);
    case "close-session":
      return applyCloseSession(state, command);
    case "expire-sessions":
      return applyExpireSessions(state, command);
    case "reclaim":
      return applyReclaim(tree, command);
    case "expire-ttl":
      return applyExpireTtl(tree, command);
    case "put-job":
      return applyPutJob(tree, command);
    case "job-progress":
      return applyJobProgress(tree, command);
    case "remove-job":
      return applyRemoveJob(tree, command);
    case "record-revision":
      return applyRecordRevision(tree, command);
    case "set-setting":
      return applySetSetting(tree, command);
    case "set-feature-level":
      return applySetFeatureLevel(tree, command);
    default:
      return unreachable(command);
  }
}
