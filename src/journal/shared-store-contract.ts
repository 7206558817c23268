/**
 * The contract suite of all shared stores: each case is a claim about the interface in `shared-store.ts`. The cases know no test
 * runner: a test file registers them with `test(name, run)`.
 */

import { assert } from "../base/assert.ts";
import { type ErrorCode, isHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import type { Disk } from "../io/disk.ts";
import { objectBytesMax, type SharedStore } from "./shared-store.ts";

export type SharedStoreHarness = {
  /** One more client of the same storage, as another machine has it. Empty at first. */
  open(): Promise<SharedStore>;
  /** For files that are uploaded and downloaded. */
  readonly localDisk: Disk;
  /** Exists. */
  readonly localDirectory: string;
  /** The storage loses its power and comes back: clients are dead. Absent: this harness cannot. */
  readonly crash?: (random: Random) => Promise<void>;
  dispose(): Promise<void>;
};

export type SharedStoreCase = { readonly name: string; readonly run: () => Promise<void> };

/** `crashes`: the harness can crash its storage. */
export function sharedStoreContract(
  name: string,
  makeHarness: () => Promise<SharedStoreHarness>,
  seed: number,
  { crashes = false }: { readonly crashes?: boolean } = {},
): readonly SharedStoreCase[] {
  const those = claims.filter(({ needsCrash = false }) => crashes || !needsCrash);
  return those.map(({ claim, run }) => ({
    name: `${name}: ${claim}`,
    run: async () => {
      const harness = await makeHarness();
      try {
        await run(harness, new Random(seed), `seed ${seed}`);
      } finally {
        await harness.dispose();
      }
    },
  }));
}

type Claim = {
  readonly claim: string;
  readonly needsCrash?: boolean;
  readonly run: (harness: SharedStoreHarness, random: Random, hint: string) => Promise<void>;
};

const claims: readonly Claim[] = [
  {
    claim:
      "of many creates of one name by several clients exactly one is told that it created it, and its bytes are there",
    async run(harness, random, hint) {
      const stores = await openMany(harness, 4);
      for (const round of range(8)) {
        const name = `log/${round}/1`;
        const contents = range(16).map(() => random.bytes(random.between(1, 3000)));
        const answers = await Promise.all(contents.map((bytes, n) => pick(stores, n).create(name, bytes)));
        const winners = answers.flatMap((answer, n) => (answer === "created" ? [n] : []));
        same(winners.length, 1, `the number of winners in round ${round}, ${hint}`);
        for (const store of stores) sameBytes(await store.read(name), contents[winners[0] as number], name);
      }
      await closeAll(stores);
    },
  },
  {
    claim: "an object is read whole by every client as soon as its create is answered, whatever its size",
    async run(harness, random) {
      const stores = await openMany(harness, 2);
      const sizes = [0, 1, 4095, 4096, 65_536, 1_000_003, objectBytesMax];
      for (const [n, size] of sizes.entries()) {
        const bytes = random.bytes(Math.min(size, 70_000));
        const content = new Uint8Array(size);
        for (let at = 0; at < size; at += bytes.length) content.set(bytes.subarray(0, size - at), at);
        same(await pick(stores, n).create(`sizes/${size}`, content), "created", `the create of ${size} bytes`);
        for (const store of stores) sameBytes(await store.read(`sizes/${size}`), content, `${size} bytes`);
      }
      await closeAll(stores);
    },
  },
  {
    claim: "an absent name is read as absent, and its absence is not remembered",
    async run(harness) {
      const [a, b] = (await openMany(harness, 2)) as [SharedStore, SharedStore];
      for (const n of range(20)) {
        const name = `epochs/${n}`;
        same(await a.read(name), undefined, name);
        same(await b.read(name), undefined, name);
        same(await b.create(name, encode(name)), "created", name);
        sameBytes(await a.read(name), encode(name), name);
      }
      same(await a.read("nowhere/at/all"), undefined, "a name in a directory that does not exist");
      same(await a.read("epochs/1/1"), undefined, "a name below an object");
      await closeAll([a, b]);
    },
  },
  {
    claim: "a name that exists is never changed, not even by the same bytes",
    async run(harness) {
      const [a, b] = (await openMany(harness, 2)) as [SharedStore, SharedStore];
      same(await a.create("epochs/1", encode("first")), "created", "the first create");
      for (const text of ["first", "second", "", "a longer content than the first one"]) {
        same(await b.create("epochs/1", encode(text)), "exists", `the create of ${text}`);
        same(await a.create("epochs/1", encode(text)), "exists", `the create of ${text}`);
      }
      sameBytes(await b.read("epochs/1"), encode("first"), "the first content");
      await closeAll([a, b]);
    },
  },
  {
    claim: "many creates of different names under way at once all succeed",
    async run(harness, random) {
      const [a, b] = (await openMany(harness, 2)) as [SharedStore, SharedStore];
      const objects = range(100).map((n) => ({ name: `log/1/${n}`, bytes: random.bytes(random.between(0, 5000)) }));
      const answers = await Promise.all(objects.map(({ name, bytes }) => a.create(name, bytes)));
      same(answers.filter((answer) => answer === "created").length, 100, "the number of created objects");
      const found = await Promise.all(objects.map(({ name }) => b.read(name)));
      for (const [n, { name, bytes }] of objects.entries()) sameBytes(found[n], bytes, name);
      await closeAll([a, b]);
    },
  },
  {
    claim: "a listing shows the objects directly below its prefix in order, behind a name, and no more than asked for",
    async run(harness) {
      const store = await harness.open();
      same(await store.list("log/1", "", 10), [], "a listing of what does not exist");
      const names = range(12).map((n) => `log/1/${String(n).padStart(4, "0")}`);
      await Promise.all([...names].reverse().map((name, n) => store.create(name, new Uint8Array(n))));
      for (const name of ["log/10/0001", "log/1-/x", "log/2", "log/1.x", "other/1"])
        await store.create(name, encode(name));
      const all = await store.list("log/1/", "", 100);
      same(
        all.map(({ name }) => name),
        names,
        "the whole listing",
      );
      same(
        all.map(({ sizeBytes }) => sizeBytes),
        range(12).reverse(),
        "the sizes",
      );
      const paged: string[] = [];
      for (let after = ""; ; ) {
        const page = await store.list("log/1", after, 5);
        paged.push(...page.map(({ name }) => name));
        if (page.length < 5) break;
        after = paged.at(-1) as string;
      }
      same(paged, names, "the listing in pages of 5");
      same(
        (await store.list("log/1", "log/1/0005-not-there", 2)).map(({ name }) => name),
        names.slice(6, 8),
        "a page behind a gap",
      );
      same(
        (await store.list("log", "", 100)).map(({ name }) => name),
        ["log/1.x", "log/2"],
        "the objects above",
      );
      await store.close();
    },
  },
  {
    claim: "a removed object is absent for all, removing it again is no error, and its name is free",
    async run(harness) {
      const [a, b] = (await openMany(harness, 2)) as [SharedStore, SharedStore];
      for (const round of range(5)) {
        same(await a.create("log/7/1", encode(`${round}`)), "created", `the create of round ${round}`);
        await b.remove("log/7/1");
        same(await a.read("log/7/1"), undefined, "the removed object");
        same(await b.read("log/7/1"), undefined, "the removed object");
        await a.remove("log/7/1");
      }
      await a.remove("never/was");
      await closeAll([a, b]);
    },
  },
  {
    claim: "removing the last object of a directory does not disturb who creates there at the same time",
    async run(harness) {
      const [a, b] = (await openMany(harness, 2)) as [SharedStore, SharedStore];
      for (const round of range(30)) {
        await a.create("log/3/0", encode("last"));
        const [, answer] = await Promise.all([a.remove("log/3/0"), b.create(`log/3/1-${round}`, encode("new"))]);
        same(answer, "created", `the create of round ${round}`);
        sameBytes(await a.read(`log/3/1-${round}`), encode("new"), "the new object");
        await b.remove(`log/3/1-${round}`);
      }
      await closeAll([a, b]);
    },
  },
  {
    claim: "large files are uploaded exclusively and downloaded as they were",
    async run(harness, random) {
      const [a, b] = (await openMany(harness, 2)) as [SharedStore, SharedStore];
      const { localDirectory: directory } = harness;
      for (const size of [0, 1, 3 * 1024 * 1024 + 1, 23 * 1024 * 1024 + 17]) {
        const content = pattern(random, size);
        await writeFile(harness, `${directory}/out-${size}`, content);
        await writeFile(harness, `${directory}/other`, encode("other"));
        same(await a.upload(`states/${size}`, `${directory}/out-${size}`), "created", `the upload of ${size} bytes`);
        same(await b.upload(`states/${size}`, `${directory}/other`), "exists", "the second upload");
        same(await b.download(`states/${size}`, `${directory}/in-${size}`), { bytes: size }, "the download");
        sameBytes(await readFile(harness, `${directory}/in-${size}`), content, `the download of ${size} bytes`);
        await harness.localDisk.unlink(`${directory}/other`);
      }
      same(await a.download("states/none", `${directory}/none`), undefined, "the download of what does not exist");
      assert(!(await isThere(harness, `${directory}/none`)), "nothing is left by a download of what does not exist");
      await closeAll([a, b]);
    },
  },
  {
    claim: "what is not a name, or too large, is refused and nothing is written",
    async run(harness) {
      const store = await harness.open();
      for (const name of ["", "/a", "a/", "a//b", "..", "a/../b", "a/.b", "A", "a b", "ü", "a\0", "x".repeat(201)]) {
        await rejectsWith("invalid", () => store.create(name, encode("x")), `the name ${JSON.stringify(name)}`);
        await rejectsWith("invalid", () => store.read(name), `the name ${JSON.stringify(name)}`);
      }
      await rejectsWith("invalid", () => store.create("big/1", new Uint8Array(objectBytesMax + 1)), "too many bytes");
      same(await store.read("big/1"), undefined, "the object that was too large");
      await store.close();
    },
  },
  {
    claim: "a call whose signal has fired is cancelled, and a closed store takes no more",
    async run(harness) {
      const store = await harness.open();
      const signal = AbortSignal.abort();
      await rejectsWith("cancelled", () => store.create("a/1", encode("x"), signal), "a create");
      await rejectsWith("cancelled", () => store.read("a/1", signal), "a read");
      await rejectsWith("cancelled", () => store.list("a", "", 1, signal), "a listing");
      same(await store.read("a/1"), undefined, "the object whose create was cancelled before it began");
      const controller = new AbortController();
      const calls = range(20).map((n) => store.create(`b/${n}`, encode("x"), controller.signal));
      controller.abort();
      for (const settled of await Promise.allSettled(calls)) {
        const isCancelled = settled.status === "rejected" && isHeadpondError(settled.reason, "cancelled");
        assert(settled.status === "fulfilled" || isCancelled, `a create ended with ${String(settled.status)}`);
      }
      await store.close();
      await store.close();
      await rejectsWith("cancelled", () => store.create("a/2", encode("x")), "a create of a closed store");
    },
  },
  {
    claim: "what was created survives a loss of power, and what was not yet answered is whole or absent",
    needsCrash: true,
    async run(harness, random, hint) {
      assert(harness.crash !== undefined, "the harness can crash its storage");
      const created = new Map<string, Uint8Array>();
      for (const round of range(12)) {
        const store = await harness.open();
        const under = new Map<string, Uint8Array>();
        const pending: Promise<void>[] = [];
        for (const n of range(random.between(1, 40))) {
          const name = `log/${random.between(1, 3)}/${round}-${n}`;
          const bytes = random.bytes(random.between(0, 9000));
          under.set(name, bytes);
          const call = store.create(name, bytes).then(
            () => void created.set(name, bytes),
            () => {},
          );
          pending.push(call);
          if (random.chance(0.3)) await turns(random.between(0, 40));
        }
        if (random.chance(0.5)) await pending[random.between(0, pending.length - 1)];
        const known = [...created];
        await harness.crash(random);
        const after = await harness.open();
        for (const [name, bytes] of known) sameBytes(await after.read(name), bytes, `${name} after the crash, ${hint}`);
        for (const [name, bytes] of under) {
          const found = await after.read(name);
          if (found !== undefined) sameBytes(found, bytes, `${name} that was under way, ${hint}`);
        }
        created.clear();
        for (const [name, bytes] of known) created.set(name, bytes);
        await after.close();
      }
    },
  },
];

/** For tests of single stores, too. */
export async function rejectsWith(code: ErrorCode, call: () => Promise<unknown>, what: string): Promise<void> {
  let outcome: unknown;
  try {
    outcome = await call();
  } catch (error) {
    if (isHeadpondError(error, code)) return;
    throw error;
  }
  throw new Error(`${what}: not refused with ${code}, but answered ${String(outcome)}`);
}

async function openMany(harness: SharedStoreHarness, count: number): Promise<readonly SharedStore[]> {
  return Promise.all(range(count).map(() => harness.open()));
}

async function closeAll(stores: readonly SharedStore[]): Promise<void> {
  await Promise.all(stores.map((store) => store.close()));
}

function pick(stores: readonly SharedStore[], n: number): SharedStore {
  return stores[n % stores.length] as SharedStore;
}

async function writeFile({ localDisk }: SharedStoreHarness, path: string, bytes: Uint8Array): Promise<void> {
  const file = await localDisk.open(path, "create");
  await file.write(bytes, 0);
  await file.close();
}

async function readFile({ localDisk }: SharedStoreHarness, path: string): Promise<Uint8Array> {
  const file = await localDisk.open(path, "read");
  const bytes = new Uint8Array((await file.stat()).sizeBytes);
  for (let filled = 0; filled < bytes.length; ) filled += await file.read(bytes.subarray(filled), filled);
  await file.close();
  return bytes;
}

async function isThere({ localDisk }: SharedStoreHarness, path: string): Promise<boolean> {
  return localDisk.stat(path).then(
    () => true,
    () => false,
  );
}

/** Random, but made fast: a random piece again and again, each with its number. */
function pattern(random: Random, size: number): Uint8Array {
  const piece = random.bytes(4099);
  const result = new Uint8Array(size);
  for (let at = 0; at < size; at += piece.length) {
    result.set(piece.subarray(0, size - at), at);
    result[at] = at & 0xff;
  }
  return result;
}

async function turns(count: number): Promise<void> {
  for (let n = 0; n < count; n++) await Promise.resolve();
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, n) => n);
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function same(actual: unknown, expected: unknown, what: string): void {
  const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)];
  assert(a === b, `${what}: ${a}, not ${b}`);
}

function sameBytes(actual: Uint8Array | undefined, expected: Uint8Array | undefined, what: string): void {
  const isSame = actual !== undefined && expected !== undefined && Buffer.compare(actual, expected) === 0;
  assert(isSame, `${what}: ${actual?.length} bytes were read, of ${expected?.length}, and they differ`);
}
