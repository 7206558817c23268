/** Known and likely bugs of the shared journal, planted in copies of its sources: the simulator must find each. */

import { type Edit, edit, plantCopy } from "./planted-copy.ts";
import type { SharedParts } from "./shared-simulator-machine.ts";
import type { SharedProfile } from "./shared-simulator-profile.ts";

export type SharedMutation = {
  /** What is wrong. */
  readonly name: string;
  readonly edits: readonly Edit[];
  /** Where it shows sooner than in histories of all kinds. */
  readonly profile: Partial<SharedProfile>;
};

const never = Number.POSITIVE_INFINITY;
/** Nothing goes wrong but what is said beside it. */
const calm: Partial<SharedProfile> = {
  ...{ size: 3, clients: 3, thinkMs: 5, fillerBytes: 0, parallelCalls: 8, delayMs: 2, sessionMs: 300 },
  ...{ lostRequest: 0, lostAnswer: 0, lateRequest: 0, oneLosesRequests: 0, existsAfterSuccess: 0, staleListing: 0 },
  ...{ killMs: never, stopMs: never, powerMs: never, downMs: 50, pauseMs: never, outageMs: never, fullMs: never },
  ...{ electionMs: never, misleadMs: never, transferMs: never, checkpointMs: never, checkpointEveryEntries: 100_000 },
};
/** Primaries are deposed all the time, and what they had under way lands later. */
const deposed: Partial<SharedProfile> = { ...calm, misleadMs: 100, pauseMs: 300, lateRequest: 0.05, delayMs: 10 };
/** What they left is taken away meanwhile. */
const collected: Partial<SharedProfile> = {
  ...deposed,
  ...{ checkpointMs: 20, checkpointEveryEntries: 10, thinkMs: 3, lateRequest: 0.1 },
};
/** Two at a time believe that they lead, and are asked. */
const readers: Partial<SharedProfile> = { ...calm, misleadMs: 100, readShare: 0.95, thinkMs: 2, clients: 4 };

export const sharedMutations: readonly SharedMutation[] = [
  {
    name: "acknowledges without reading the epoch again",
    edits: [
      edit(
        "journal/shared-fence",
        "const next = await objects.read(epochName(epoch + 1), signal);",
        "const next = undefined as undefined | Awaited<ReturnType<typeof objects.read>>;",
      ),
    ],
    profile: readers,
  },
  {
    name: "believes what it read without looking at the checkpoints again",
    edits: [
      edit("journal/shared-reader", 'if (records.mayBeGone(from)) return "gone";', ""),
      edit("journal/shared-reader", "await records.look(signal);", ""),
    ],
    profile: collected,
  },
  {
    name: "believes its seal without looking at the checkpoints again",
    edits: [
      edit(
        "journal/shared-follower",
        "await records.look(signal);\n    if (records.mayBeGone(at))",
        "if (records.mayBeGone(at) && at.epoch < 0)",
      ),
      // The read before the seal would look.
      edit("journal/shared-reign", "const atEnd = await follower.step(signal);", "const atEnd = true;"),
    ],
    profile: collected,
  },
  {
    name: "takes an absent slot for the end of an epoch without a seal",
    edits: [
      edit(
        "journal/shared-follower",
        "const created = await objects.create(name, bytes, mark, signal);",
        "const created = { own: bytes.length > 0 };",
      ),
    ],
    profile: deposed,
  },
  {
    name: "acknowledges a slot although one before it is missing",
    edits: [
      edit(
        "journal/shared-writer",
        'const hole = this.#slots.findIndex(({ state }) => state !== "durable");',
        'const hole = this.#slots.findLastIndex(({ state }) => state === "durable") + 1 || 0;',
      ),
    ],
    profile: { ...deposed, lostRequest: 0.05 },
  },
  {
    name: "acknowledges before the slot is there",
    edits: [
      edit(
        "journal/shared-writer",
        "const created = await objects.create(",
        'slot.state = "durable";\n      this.#check();\n      const created = await objects.create(',
      ),
    ],
    profile: { ...calm, killMs: 200, lostRequest: 0.2 },
  },
  {
    name: "takes every object under the name of a slot for its own",
    edits: [
      edit("journal/shared-objects", "return found.head.mark === mark ?", "return found.head.mark !== undefined ?"),
    ],
    profile: deposed,
  },
  {
    name: 'takes "exists" for success',
    edits: [edit("journal/shared-objects", 'if (answer === "created")', "if (answer.length > 0)")],
    profile: deposed,
  },
  {
    name: "what may have happened is answered as refused",
    edits: [
      edit(
        "journal/shared-journal",
        'const lost = new HeadpondError(\n      "unknown-outcome"',
        'const lost = new HeadpondError(\n      "denied"',
      ),
    ],
    profile: deposed,
  },
  {
    name: "what a deposed primary has not sent waits for ever",
    edits: [edit("journal/shared-journal", "this.#proposals.refuseQueued(this.#members.notLeader());", "")],
    profile: { ...calm, misleadMs: 300, parallelCalls: 1, delayMs: 40, thinkMs: 3 },
  },
  {
    name: "a primary answers reads without reading the epoch",
    edits: [edit("journal/shared-reads", "fence.check().then((isStill)", "Promise.resolve(true).then((isStill)")],
    profile: readers,
  },
  {
    name: "a standby answers reads from what it has",
    edits: [
      edit(
        "journal/shared-reads",
        "if (context !== undefined && !isAll) this.#barriers.again(context);",
        "if (context !== undefined) this.#barriers.granted(context, 0, 0);",
      ),
    ],
    profile: { ...calm, thinkMs: 3, delayMs: 10, pauseMs: 400 },
  },
  {
    name: "a state is trusted after a power failure",
    edits: [edit("journal/state-trust", 'if (mark["bootId"] !== this.#bootId) return', "if (false) return")],
    profile: { ...calm, powerMs: 400 },
  },
  {
    name: "garbage collection takes what the newest checkpoint covers",
    edits: [
      edit(
        "journal/shared-collector",
        "isAtOrBefore({ epoch, slot }, before.upTo)",
        "isAtOrBefore({ epoch, slot }, newest.upTo)",
      ),
      edit("journal/shared-collector", "epoch <= before.upTo.epoch", "epoch <= newest.upTo.epoch"),
    ],
    profile: { ...collected, pauseMs: 100 },
  },
  {
    name: "an epoch that is another's is taken",
    edits: [
      edit(
        "journal/shared-fence",
        "if ((await objects.create(name, bytes, mark, signal)).own) return epoch;",
        "await objects.create(name, bytes, mark, signal);\n    return epoch;",
      ),
    ],
    profile: deposed,
  },
];

const folders = ["base", "io", "rpc", "raft", "under-store", "zookeeper", "journal"];

/** The journal with the bugs in it. */
export async function plantInShared({
  name,
  edits,
}: SharedMutation): Promise<{ parts: SharedParts; discard: () => Promise<void> }> {
  const { load, discard } = await plantCopy(name, edits, folders);
  try {
    const { SharedJournal } = await load<Pick<SharedParts, "SharedJournal">>("journal/shared-journal.ts");
    const { HeadpondError } = await load<Pick<SharedParts, "HeadpondError">>("base/errors.ts");
    return { parts: { SharedJournal, HeadpondError }, discard };
  } catch (error) {
    await discard();
    throw error;
  }
}
