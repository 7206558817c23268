/**
 * The contract suite of all journals: each case is a claim about the interface in `journal.ts`, and an implementation
 * passes by giving a harness that opens, crashes and closes it. The cases know no test runner: a test file registers
 * them, a simulator may run them under faults of its own.
 */

import { assert } from "../base/assert.ts";
import { isHeadpondError } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import type { Entry, Journal, Role } from "./journal.ts";
import { type Applied, type ListMachine, resultOf } from "./list-machine.ts";

/** One leader over one durable place. Its segments are so small that a few hundred entries fill several. */
export type JournalHarness = {
  /** A journal over what is durable now, with an empty machine; started, and leading. `onRole` is set before the start. */
  open(onRole?: (role: Role) => void): Promise<{ readonly journal: Journal<string>; readonly machine: ListMachine }>;
  /** The power fails: what was not durable is lost or torn, proposals under way are never answered. */
  crash(): Promise<void>;
  dispose(): Promise<void>;
};

export type ContractCase = { readonly name: string; readonly run: () => Promise<void> };

/** `makeHarness` gives an empty journal; `random` decides what crashes keep. */
export function journalContract(
  name: string,
  makeHarness: (random: Random) => Promise<JournalHarness>,
  random: Random,
): readonly ContractCase[] {
  return claims.map(({ claim, run }) => ({
    name: `${name}: ${claim}`,
    run: async () => {
      const harness = await makeHarness(random);
      try {
        await run(harness, random);
      } finally {
        await harness.dispose();
      }
    },
  }));
}

type Claim = { readonly claim: string; readonly run: (harness: JournalHarness, random: Random) => Promise<void> };

const claims: readonly Claim[] = [
  {
    claim: "each proposer gets the result of its own command, at rising indexes without gaps",
    async run(harness) {
      const { journal, machine } = await harness.open();
      const texts = range(300).map((n) => `command ${n}`);
      const proposed = await Promise.all(texts.map((text) => journal.propose(encode(text))));
      for (const [at, { index, result }] of proposed.entries()) {
        same(result, resultOf(texts[at] as string), "the result of a proposal");
        same(machine.list[index - 1]?.text, texts[at], `the command at index ${index}`);
        if (at > 0) same(index, (proposed[at - 1]?.index ?? 0) + 1, "the index after the one before");
      }
      await journal.close();
    },
  },
  {
    claim: "what is acknowledged is in the state, and a read barrier after it sees it",
    async run(harness) {
      const { journal, machine } = await harness.open();
      for (const n of range(20)) {
        const { index } = await journal.propose(encode(`n${n}`));
        await journal.readBarrier();
        assert(
          machine.applied.index >= index,
          `index ${index} is acknowledged, the state is at ${machine.applied.index}`,
        );
      }
      await journal.close();
    },
  },
  {
    claim: "a clean restart keeps every entry with its index and term, and appends behind them",
    async run(harness) {
      let before: readonly Applied[] = [];
      let term = 0;
      for (const round of range(4)) {
        const { journal, machine } = await harness.open();
        samePrefix(machine.list, before);
        assert(journal.status().term > term, `term ${journal.status().term} after term ${term}`);
        term = journal.status().term;
        await Promise.all(range(50).map((n) => journal.propose(encode(`round ${round} command ${n}`))));
        before = [...machine.list];
        await journal.close();
      }
      const { journal, machine } = await harness.open();
      same(texts(machine.list).length, 200, "the number of commands");
      await journal.close();
    },
  },
  {
    claim: "a crash at any moment loses nothing acknowledged, doubles nothing and reorders nothing",
    async run(harness, random) {
      let acknowledged: readonly Applied[] = [];
      for (const round of range(25)) {
        const { journal, machine } = await harness.open();
        samePrefix(machine.list, acknowledged);
        same(new Set(texts(machine.list)).size, texts(machine.list).length, "the number of different commands");
        const known = new Map<number, string>();
        const count = random.between(0, 60);
        for (const n of range(count)) {
          const text = `round ${round} command ${n} ${"x".repeat(random.between(0, 900))}`;
          journal.propose(encode(text)).then(
            ({ index }) => known.set(index, text),
            () => {},
          );
          if (random.chance(0.2)) await turns(random.between(0, 30));
        }
        if (random.chance(0.1)) journal.checkpoint().catch(() => {});
        await turns(random.between(0, 120));
        // Before the crash, because a dead journal's promises must not count.
        const last = Math.max(acknowledged.length, ...known.keys());
        acknowledged = machine.list.slice(0, last);
        for (const [index, text] of known) same(machine.list[index - 1]?.text, text, `the command at index ${index}`);
        known.clear();
        await harness.crash();
      }
      const { journal, machine } = await harness.open();
      samePrefix(machine.list, acknowledged);
      await journal.close();
    },
  },
  {
    claim: "the committed stream gives every entry once, in order, from any index, also to a slow reader",
    async run(harness) {
      const { journal, machine } = await harness.open();
      const propose = (from: number, to: number): Promise<unknown> =>
        Promise.all(range(to - from).map((n) => journal.propose(encode(`command ${from + n} ${"y".repeat(200)}`))));
      await propose(0, 100);
      const end = new AbortController();
      const total = machine.list.length + 400;
      const fast = collect(journal.committed(1, end.signal), total);
      const slow = collect(journal.committed(1, end.signal), total, 3);
      const late = collect(journal.committed(90, end.signal), total - 89);
      for (const n of range(8)) await propose(100 + n * 50, 150 + n * 50);
      const expected = machine.list.map(({ index, text }) => [index, text]);
      same(await fast, expected, "the stream of a fast reader");
      same(await slow, expected, "the stream of a slow reader");
      same(await late, expected.slice(89), "the stream from index 90");
      end.abort();
      await journal.close();
    },
  },
  {
    claim: "a committed stream waits for entries to come, and ends with its signal or with the journal",
    async run(harness) {
      const { journal, machine } = await harness.open();
      const aborted = new AbortController();
      const next = machine.list.length + 1;
      const first = collect(journal.committed(next, aborted.signal), 100);
      const second = collect(journal.committed(next, new AbortController().signal), 100);
      await turns(10);
      await journal.propose(encode("awaited"));
      await turns(20);
      aborted.abort();
      same(
        (await first).map(([, text]) => text),
        ["awaited"],
        "the aborted stream",
      );
      await journal.close();
      same(
        (await second).map(([, text]) => text),
        ["awaited"],
        "the stream of a closed journal",
      );
    },
  },
  {
    claim: "checkpoints let the log be cut, a stream from a cut index is refused, and an empty machine recovers",
    async run(harness) {
      const { journal, machine } = await harness.open();
      for (const round of range(6)) {
        await Promise.all(
          range(60).map((n) => journal.propose(encode(`round ${round} command ${n} ${"z".repeat(300)}`))),
        );
        const { index } = await journal.checkpoint();
        same(index, machine.list.length, "the index of the checkpoint");
        same(journal.status().checkpointIndex, index, "the checkpoint in the status");
      }
      assert(journal.status().firstIndex > 1, "the log was cut");
      const failure = await collect(journal.committed(1, new AbortController().signal), 1).then(
        () => undefined,
        (error: unknown) => error,
      );
      assert(isHeadpondError(failure, "compacted"), `a stream from a cut index gives ${String(failure)}`);
      await journal.propose(encode("behind the checkpoint"));
      const before = [...machine.list];
      const digest = machine.digest();
      await journal.close();
      const again = await harness.open();
      samePrefix(again.machine.list, before);
      if (again.machine.list.length === before.length)
        same(again.machine.digest(), digest, "the digest after recovery");
      await again.journal.close();
    },
  },
  {
    claim: "proposals go on while a checkpoint is made",
    async run(harness) {
      const { journal, machine } = await harness.open();
      await Promise.all(range(100).map((n) => journal.propose(encode(`before ${n}`))));
      const checkpoint = journal.checkpoint();
      const proposed = await Promise.all(range(100).map((n) => journal.propose(encode(`during ${n}`))));
      const { index } = await checkpoint;
      assert(index <= (proposed.at(-1)?.index ?? 0), "a checkpoint is of something that was applied");
      same(texts(machine.list).length, 200, "the number of commands");
      await journal.close();
    },
  },
  {
    claim: "close finishes what was proposed and refuses what comes after, without a trace",
    async run(harness) {
      const { journal, machine } = await harness.open();
      const proposed = range(40).map((n) => journal.propose(encode(`early ${n}`)));
      const closed = journal.close();
      const late = await journal.propose(encode("late")).then(
        () => undefined,
        (error: unknown) => error,
      );
      assert(isHeadpondError(late) && late.outcome === "none", `a proposal after close gives ${String(late)}`);
      same((await Promise.all(proposed)).length, 40, "the proposals before close");
      await closed;
      await journal.close();
      const before = [...machine.list];
      const again = await harness.open();
      samePrefix(again.machine.list, before);
      assert(!texts(again.machine.list).includes("late"), "a refused proposal is not in the log");
      await again.journal.close();
    },
  },
  {
    claim: "an empty command and one that is too large are invalid and leave no trace",
    async run(harness) {
      const { journal, machine } = await harness.open();
      const before = machine.list.length;
      for (const payload of [new Uint8Array(0), new Uint8Array(64 * 1024 * 1024)]) {
        const refused = await journal.propose(payload).then(
          () => undefined,
          (error: unknown) => error,
        );
        assert(
          isHeadpondError(refused, "invalid") && refused.outcome === "none",
          `${payload.length} bytes give ${String(refused)}`,
        );
      }
      same(machine.list.length, before, "the number of entries");
      await journal.close();
    },
  },
  {
    claim: "the role is leader between start and close, each change is told, and the status fits",
    async run(harness) {
      const roles: Role[] = [];
      const { journal, machine } = await harness.open((role) => roles.push(role));
      same(journal.role, "leader", "the role after start");
      await Promise.all(range(10).map((n) => journal.propose(encode(`n${n}`))));
      const { role, firstIndex, lastIndex, commitIndex, appliedIndex } = journal.status();
      same([role, firstIndex, appliedIndex], ["leader", 1, machine.list.length], "role, first and applied index");
      assert(appliedIndex <= commitIndex && commitIndex <= lastIndex, "applied <= committed <= last");
      await journal.close();
      same([roles.at(0), roles.at(-1)], ["leader", "standby"], "the first and the last role told");
      same(journal.role, "standby", "the role after close");
    },
  },
];

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, n) => n);
}

/** Without the no-ops that a journal writes for itself. */
function texts(list: readonly Applied[]): string[] {
  return list.map(({ text }) => text).filter((text) => text !== "");
}

/** Reads until `count` entries or the end; pauses every so often if asked to be slow. */
async function collect(stream: AsyncIterable<Entry>, count: number, pauseTurns = 0): Promise<[number, string][]> {
  const result: [number, string][] = [];
  for await (const { index, payload } of stream) {
    result.push([index, new TextDecoder().decode(payload)]);
    if (result.length >= count) break;
    if (pauseTurns > 0) await turns(pauseTurns);
  }
  return result;
}

/** Lets other work go on, in microtasks first and then in whole turns of the event loop. */
async function turns(count: number): Promise<void> {
  for (let n = 0; n < count; n++) await Promise.resolve();
  if (count % 3 === 0) await new Promise<void>((resolve) => setTimeout(resolve, 0));
}

function same(actual: unknown, expected: unknown, what: string): void {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)];
  assert(a === b, `${what}: ${a?.slice(0, 500)} instead of ${b?.slice(0, 500)}`);
}

function samePrefix(list: readonly Applied[], prefix: readonly Applied[]): void {
  assert(list.length >= prefix.length, `${prefix.length} entries were acknowledged, ${list.length} are there`);
  for (const [at, expected] of prefix.entries()) same(list[at], expected, `entry ${at + 1}`);
}
