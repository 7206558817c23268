/**
 * Known bugs of consensus implementations, planted in copies of the core's sources: the simulator must find each. A
 * mutation is an edit of the text, so the product has no switch for it; one that no longer applies is an error.
 */

import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { RaftClass } from "./raft-core-node.ts";
import type { Profile } from "./raft-core-simulator.ts";

type Edit = { readonly file: string; readonly find: string; readonly replace: string };

export type Mutation = {
  /** What is wrong, as a hazard. */
  readonly name: string;
  readonly edits: readonly Edit[];
  /** Where it shows sooner than in histories of all kinds. */
  readonly profile?: Partial<Profile>;
};

const edit = (file: string, find: string, replace: string): Edit => ({ file, find, replace });

/** A fast cluster with idle clients, one member that does not hear the leader, and a leader that hears of nothing. */
const deafMember: Partial<Profile> = {
  ...{ size: 3, loss: 0, delayMs: 1, flushMs: 1, straggle: 0, proposeMs: 20, readMs: 10, lullMs: 1500, malice: 1 },
  ...{
    cutMs: 1200,
    pauseMs: Number.POSITIVE_INFINITY,
    hangMs: Number.POSITIVE_INFINITY,
    changeMs: Number.POSITIVE_INFINITY,
  },
};
/** Members come and go while logs are cut and members are away. */
const restlessMembers: Partial<Profile> = {
  ...{ size: 3, loss: 0, delayMs: 3, flushMs: 1, checkpointMs: 60, keepEntries: 0, changeMs: 300, crashMs: 1200 },
  ...{ downMs: 2000, cutMs: 1200, proposeMs: 20 },
};

/** By itself it hides much of what a forgotten vote can do. */
const noWaitAfterRestart = edit(
  "election",
  "Math.max(this.#heardAtMs, restartedAtMs)",
  "Math.max(this.#heardAtMs, 0 * restartedAtMs - 1e9)",
);

export const mutations: readonly Mutation[] = [
  {
    name: "a vote leaves before it is durable",
    edits: [
      noWaitAfterRestart,
      edit("election", 'outbox.hold({ type: "vote-reply", ...reply', 'outbox.send({ type: "vote-reply", ...reply'),
    ],
  },
  {
    name: "a candidacy begins before it is durable",
    edits: [
      edit("election", 'outbox.hold({ type: "vote", from', 'outbox.send({ type: "vote", from'),
      edit("election", 'outbox.hold({ type: "vote-reply", from: id', 'outbox.send({ type: "vote-reply", from: id'),
    ],
  },
  {
    name: "entries are acknowledged before they are durable",
    edits: [edit("following", 'outbox.hold({ type: "append-ok"', 'outbox.send({ type: "append-ok"')],
  },
  {
    name: "a leader counts its own entries before its disk has them",
    edits: [edit("leadership", "this.#quorum(log.stableIndex,", "this.#quorum(log.lastIndex,")],
  },
  {
    name: "entries of older terms are committed by counting (Figure 8)",
    edits: [edit("leadership", " && log.term(index) === term", "")],
  },
  {
    name: "heartbeats sent before a read confirm it",
    edits: [edit("reads", "this.#asked.push({ ...read, round })", "this.#asked.push({ ...read, round: round - 1 })")],
  },
  {
    name: "the lease does not age while the process is paused",
    edits: [
      edit("raft", "mayRead(this.#nowMs)", "mayRead(this.#uptimeMs)"),
      edit("raft", "beginRound(this.#nowMs)", "beginRound(this.#uptimeMs)"),
      edit("raft", "replicate(this.#nowMs)", "replicate(this.#uptimeMs)"),
      edit("raft", "this.#uptimeMs, this.#nowMs, judge", "this.#uptimeMs, this.#uptimeMs, judge"),
    ],
  },
  {
    name: "the lease counts from the answer, not from the question",
    edits: [
      edit("raft", "onHeartbeatOk(message)", "onHeartbeatOk({ ...message, sentAtMs: this.#nowMs })"),
      edit("raft", "onAppendOk(message)", "onAppendOk({ ...message, sentAtMs: this.#nowMs })"),
    ],
  },
  {
    name: "a restarted voter votes at once",
    edits: [noWaitAfterRestart],
    profile: {
      ...deafMember,
      ...{ crashMs: Number.POSITIVE_INFINITY, forgetful: 0.5, cutMs: 400, lullMs: 600, proposeMs: 60 },
    },
  },
  {
    name: "a voter helps a candidate while its leader counts on it",
    edits: [edit("raft", "if (asksForVote && !isTransfer && ", "if (false && asksForVote && !isTransfer && ")],
    profile: deafMember,
  },
  {
    name: "the lease goes on after leadership was offered to another",
    edits: [edit("leadership", "    this.#leaseEnded = true;\n", "")],
  },
  {
    name: "a leader that was removed counts itself",
    edits: [
      edit(
        "leadership",
        "return quorumValue(membership.current, (voter)",
        "const { voters, outgoing } = membership.current;\n    return quorumValue({ voters: [...new Set([...voters, id])], outgoing }, (voter)",
      ),
    ],
  },
  {
    name: "a late append cuts off the tail behind it",
    edits: [
      edit("log", "entries.findIndex(({ index, term }) => !this.matches(index, term))", "entries.length > 0 ? 0 : -1"),
      edit("log", "assert(from > this.#commit,", "assert(from > 0,"),
    ],
  },
  {
    name: "a flush that ended makes overwritten entries durable (ABA)",
    edits: [edit("log", "write.lastIndex = Math.min(write.lastIndex, from - 1)", "void write")],
  },
  {
    name: "a new leader reads before it has committed",
    edits: [
      edit("raft", "if (!leadership.hasCommitted) this.#reads.wait", "if (false) this.#reads.wait"),
      edit("leadership", "if (!this.#hasCommitted || this.#leaseEnded)", "if (this.#leaseEnded)"),
    ],
  },
  {
    name: "a joint configuration is decided by its new half alone",
    edits: [
      edit("quorum", "outgoing.length === 0 ? incoming", "outgoing.length >= 0 ? incoming"),
      edit("quorum", "majorityVote(outgoing, votes)]", '"won"]'),
    ],
  },
  {
    name: "a truncated configuration stays in force",
    edits: [
      edit(
        "following",
        "if (truncatedFrom !== undefined) this.#membership",
        "if (truncatedFrom === 0) this.#membership",
      ),
    ],
  },
  {
    name: "a snapshot loses the configuration",
    edits: [
      edit("following", "reset(index, message.snapshot.configuration)", "reset(index, this.#membership.current)"),
    ],
    profile: restlessMembers,
  },
  {
    name: "votes go to logs that lack entries",
    edits: [edit("election", "mayVote && log.isUpToDate(message.lastIndex, message.lastTerm)", "mayVote")],
  },
  {
    name: "the vote is forgotten in a crash",
    edits: [
      noWaitAfterRestart,
      edit(
        "outbox",
        "hardState: isNew ? hardState : undefined",
        "hardState: isNew ? { term: hardState.term, vote: undefined } : undefined",
      ),
    ],
  },
  {
    name: "proposals of a deposed leader are left without an answer",
    edits: [edit("raft", "if (lastIndex > commit) this.#unknown", "if (lastIndex < 0) this.#unknown")],
  },
  {
    name: "joint state is never left",
    edits: [edit("raft", "if (leadership.isChangeDone && isJoint(current))", "if (false)")],
  },
  {
    name: "a snapshot that got lost is waited for",
    edits: [
      edit(
        "progress",
        'return this.#state === "snapshot" && nowMs - this.#snapshotSinceMs > timeoutMs',
        "return nowMs < timeoutMs && false",
      ),
    ],
  },
  {
    name: "what got lost is never sent again",
    edits: [edit("progress", "    this.#nudged = true;\n", "")],
  },
];

/** The core with the bugs in it. Call `discard` when done. */
export async function plant({ name, edits }: Mutation): Promise<{ Raft: RaftClass; discard: () => Promise<void> }> {
  const sources = join(dirname(fileURLToPath(import.meta.url)), "..");
  const directory = await mkdtemp(join(tmpdir(), "raft-mutation-"));
  const discard = (): Promise<void> => rm(directory, { recursive: true, force: true });
  try {
    for (const folder of ["base", "raft"]) {
      await cp(join(sources, folder), join(directory, folder), { recursive: true });
    }
    await writeFile(join(directory, "package.json"), '{ "type": "module" }');
    for (const { file, find, replace } of edits) {
      const path = join(directory, "raft", `${file}.ts`);
      const text = await readFile(path, "utf8");
      if (!text.includes(find)) throw new Error(`mutation "${name}" does not apply: ${file}.ts has no ${find}`);
      await writeFile(
        path,
        text.replaceAll(find, () => replace),
      );
    }
    const { Raft } = (await import(pathToFileURL(join(directory, "raft", "raft.ts")).href)) as { Raft: RaftClass };
    return { Raft, discard };
  } catch (error) {
    await discard();
    throw error;
  }
}
