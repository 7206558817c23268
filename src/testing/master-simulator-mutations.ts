/**
 * Known and likely bugs of what drives the consensus, planted in copies of the product's sources: the simulator of whole masters must
 * find each. A mutation is an edit of the text, so the product has no switch for it; one that no longer applies is an error.
 */

import type { MasterParts } from "./master-simulator-machine.ts";
import type { Profile } from "./master-simulator-profile.ts";
import { type Edit, edit, plantCopy } from "./planted-copy.ts";

export type MasterMutation = {
  /** What is wrong. */
  readonly name: string;
  readonly edits: readonly Edit[];
  /** Where it shows sooner than in histories of all kinds. */
  readonly profile?: Partial<Profile>;
};

const never = Number.POSITIVE_INFINITY;
/** Nothing goes wrong but what is said beside it. */
const calm: Partial<Profile> = {
  ...{
    size: 3,
    delayMs: 1,
    stall: 0,
    flushMs: 3,
    cutMs: never,
    resetMs: never,
    killMs: never,
    stopMs: never,
    powerMs: never,
  },
  ...{
    pauseMs: never,
    hangMs: never,
    flushFailsMs: never,
    fullMs: never,
    wipeMs: never,
    rotMs: never,
    changeMs: never,
  },
  ...{
    powerOfAll: 0,
    comesBackUnderItsName: 0,
    transferMs: never,
    checkpointMs: never,
    wallJumpMs: never,
    clientDeathMs: never,
    sessionTimeoutMs: 300_000,
  },
  ...{ thinkMs: 20, clients: 4, concurrency: 3, paths: 2, fillerBytes: 0, checkpointEveryEntries: 100_000 },
};
const powerFails: Partial<Profile> = { ...calm, powerMs: 400, downMs: 50 };
const leadersAreCutOff: Partial<Profile> = { ...calm, cutMs: 700, pauseMs: 900, timeoutMs: 1500 };
/** Those who come back find the log cut. */
const checkpointsAreSent: Partial<Profile> = {
  ...{ ...calm, powerMs: 500, downMs: 1000, checkpointEveryEntries: 20, logKeepBytes: 0 },
  ...{ segmentBytes: 8192, fillerBytes: 1500, thinkMs: 10, wipeMs: 2000 },
};

export const masterMutations: readonly MasterMutation[] = [
  {
    name: "the log acknowledges before it has flushed",
    edits: [
      edit(
        "journal/wal",
        "const count = this.#write(records);\n      await this.#file.datasync();",
        "const count = this.#write(records);",
      ),
    ],
    profile: powerFails,
  },
  {
    name: "term and vote are not written",
    edits: [edit("journal/raft-writer", "if (hardState !== undefined) {", "if (hardState === null) {")],
    profile: powerFails,
  },
  {
    name: "truncations are not written",
    edits: [edit("journal/raft-writer", "if (truncateFrom !== undefined) {", "if (truncateFrom === -1) {")],
    profile: { ...leadersAreCutOff, killMs: 700, downMs: 50 },
  },
  {
    name: "a leader reads as long as it believes that it leads",
    edits: [
      edit("journal/raft-journal", "core.leaseIndex(clock.monotonicMs()) !== undefined", 'core.role === "leader"'),
    ],
    profile: leadersAreCutOff,
  },
  {
    name: "a standby reads without asking the leader",
    edits: [
      edit(
        "journal/raft-journal",
        "if (this.mayRead) return Promise.resolve();",
        'if (this.mayRead || this.#role === "standby") return Promise.resolve();',
      ),
    ],
    profile: calm,
  },
  {
    name: "a standby reads before it has applied what the leader said",
    edits: [
      edit(
        "journal/raft-barriers",
        "if (index <= appliedIndex) this.#pass(group);",
        "if (index >= 0) this.#pass(group);",
      ),
    ],
    profile: { ...calm, delayMs: 10 },
  },
  {
    name: "what may have happened is answered as refused",
    edits: [
      edit(
        "journal/raft-proposals",
        'new HeadpondError("unknown-outcome", message)',
        'new HeadpondError("denied", message)',
      ),
    ],
    profile: leadersAreCutOff,
  },
  {
    name: "proposals of a leader that was deposed are never answered",
    edits: [
      edit("journal/raft-proposals", "if (from >= to) continue;", "if (from >= 0) continue;"),
      edit("journal/raft-proposals", "entry.index === expected && entry.term === batch.term", "entry.index >= 0"),
    ],
    profile: leadersAreCutOff,
  },
  {
    name: "a request that comes again is applied again",
    edits: [edit("namespace/apply", "if (stored !== undefined) {", "if (stored === null) {")],
    profile: { ...calm, resetMs: 150 },
  },
  {
    name: "results of sessions are not in the state at rest",
    edits: [
      edit("namespace/session-table", "batch.put(rowsTable, resultKey(session.id, sequence), stored.counted.row);", ""),
    ],
    profile: { ...calm, killMs: 300, downMs: 5, flushStateMs: 20 },
  },
  {
    name: "a state is trusted after a power failure",
    edits: [edit("journal/state-trust", 'if (mark["bootId"] !== this.#bootId) return', "if (false) return")],
    profile: powerFails,
  },
  {
    name: "a checkpoint that was received is not flushed",
    edits: [
      edit("journal/snapshot-receiver", "await file.datasync();\n          return readFinish", "return readFinish"),
    ],
    profile: { ...checkpointsAreSent, checkpointEveryEntries: 100_000, checkpointMs: 150, wipeMs: 500, downMs: 100 },
  },
  {
    name: "a checkpoint is installed without beginning the log anew",
    edits: [edit("journal/raft-checkpointer", "await wal.restart(index, term);", "")],
    profile: checkpointsAreSent,
  },
  {
    name: "half of a checkpoint is installed",
    edits: [
      edit("journal/snapshot-receiver", "if (bytes !== offer.bytes)", "if (bytes < 0)"),
      edit("journal/snapshot-receiver", "if (sum !== xxh64)", "if (sum === undefined)"),
      edit(
        "journal/snapshot-stream",
        "at < this.#file.bytes && !signal.aborted",
        "at < this.#file.bytes / 2 && !signal.aborted",
      ),
      edit(
        "journal/snapshot-stream",
        "Math.min(chunkBytes, this.#file.bytes - at)",
        "Math.min(chunkBytes, Math.ceil(this.#file.bytes / 2))",
      ),
    ],
    profile: checkpointsAreSent,
  },
  {
    name: "a checkpoint does not say who the members are",
    edits: [
      edit(
        "journal/checkpoints",
        "const configuration = configurationAt?.(index);",
        "const configuration = undefined;",
      ),
    ],
    profile: checkpointsAreSent,
  },
  {
    name: "a disk under the name of another one is let in, and votes",
    edits: [
      edit(
        "journal/raft-identity",
        "if (known === undefined || known === peer.incarnation) return undefined;",
        "return undefined;",
      ),
      edit("journal/raft-parts", "const isAdmitted = ", "const isAdmitted = true || "),
    ],
    profile: { ...calm, wipeMs: 400, downMs: 5, cutMs: 400, comesBackUnderItsName: 1 },
  },
  {
    name: "a configuration must be committed before it admits a disk",
    edits: [
      edit(
        "journal/raft-parts",
        "configurations.at(-1)?.configuration",
        "configurations.findLast(({ index }) => index <= appliedIndex)?.configuration",
      ),
      edit(
        "journal/raft-journal",
        "identity.isNamedBy(core.configuration.configuration)",
        "identity.isNamedBy(core.configurationAt(this.#options.machine.applied.index) ?? core.configuration.configuration)",
      ),
    ],
    profile: { ...calm, size: 3, powerMs: 600, powerOfAll: 1, resetMs: 200, delayMs: 25, changeMs: 400 },
  },
  {
    name: "a learner is promoted before it knows who it is",
    edits: [edit("journal/raft-members", "const knowsItself = ", "const knowsItself = true || ")],
    profile: { ...calm, size: 1, changeMs: 300, cutMs: 300, killMs: 400, downMs: 2000 },
  },
  {
    name: "a change is answered with the version of a later one",
    edits: [
      edit(
        "master/namespace-service",
        "const own = intentId === undefined ? version : (status?.version ?? version);",
        "const own = status?.version ?? version;",
      ),
    ],
    profile: { ...calm, flushMs: 10, clients: 4, concurrency: 3, paths: 2 },
  },
];

const folders = ["base", "io", "rpc", "raft", "namespace", "under-store", "zookeeper", "journal", "master"];

/** The product with the bugs in it. Call `discard` when done. */
export async function plantInMasters({
  name,
  edits,
}: MasterMutation): Promise<{ parts: MasterParts; discard: () => Promise<void> }> {
  const { load, discard } = await plantCopy(name, edits, folders);
  try {
    const { RaftJournal } = await load<Pick<MasterParts, "RaftJournal">>("journal/raft-journal.ts");
    const { TcpPeers } = await load<Pick<MasterParts, "TcpPeers">>("journal/tcp-peers.ts");
    const { Master } = await load<Pick<MasterParts, "Master">>("master/master.ts");
    const { Namespace } = await load<Pick<MasterParts, "Namespace">>("namespace/namespace.ts");
    const { SharedJournal } = await load<Pick<MasterParts, "SharedJournal">>("journal/shared-journal.ts");
    return { parts: { RaftJournal, SharedJournal, TcpPeers, Master, Namespace }, discard };
  } catch (error) {
    await discard();
    throw error;
  }
}
