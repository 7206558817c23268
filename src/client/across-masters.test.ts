/** Listings and watches whose master fails in the middle: the next one goes on where it stopped. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadpondError } from "../base/errors.ts";
import { ManualClock } from "../io/manual-clock.ts";
import type { StreamMethod } from "../rpc/method.ts";
import { listRows } from "./listing.ts";
import type { MasterCalls } from "./master-calls.ts";
import { watchChanges } from "./watch.ts";

const broken = new HeadpondError("unavailable", "the connection broke");

type Fields = { readonly afterName?: string; readonly limit?: number; readonly fromIndex?: number };

/** Masters of which each answers one stream: with these items, and then an error if there is one. */
class Script implements MasterCalls {
  readonly asked: Fields[] = [];
  readonly #answers: (readonly [readonly unknown[], Error?])[];

  constructor(...answers: readonly (readonly [readonly unknown[], Error?])[]) {
    this.#answers = [...answers];
  }

  call(): Promise<never> {
    return Promise.reject(new Error("only streams are opened"));
  }

  async *openStream<Request, Item>(_method: StreamMethod<Request, Item>, request: Request): AsyncGenerator<Item> {
    this.asked.push({ ...(request as Fields) });
    const [items, error] = this.#answers.shift() ?? [[]];
    for (const item of items) yield item as Item;
    if (error !== undefined) throw error;
  }

  async close(): Promise<void> {}
}

const page = (...paths: readonly string[]) => ({ entries: paths.map((path) => ({ path })) });

async function namesOf(rows: AsyncIterable<{ readonly path: string }>): Promise<string[]> {
  const names: string[] = [];
  for await (const { path } of rows) names.push(path);
  return names;
}

test("a listing goes on behind the last name that came, with the rest of its limit", async () => {
  const masters = new Script([[page("/d/a", "/d/b")], broken], [[page("/d/c")], broken], [[page("/d/d")]]);
  assert.deepEqual(await namesOf(listRows(masters, { path: "/d", limit: 10 }, {})), ["/d/a", "/d/b", "/d/c", "/d/d"]);
  assert.deepEqual(
    masters.asked.map(({ afterName, limit }) => [afterName, limit]),
    [
      [undefined, 10],
      ["b", 8],
      ["c", 7],
    ],
  );
});

test("a listing that had all it was asked for ends, although its master fails", async () => {
  const masters = new Script([[page("/d/a", "/d/b")], broken]);
  assert.deepEqual(await namesOf(listRows(masters, { path: "/d", limit: 2 }, {})), ["/d/a", "/d/b"]);
  const file = new Script([[page("/f")], broken]);
  assert.deepEqual(await namesOf(listRows(file, { path: "/f" }, {})), ["/f"]);
});

test("a listing of a tree, one that nobody answers, and one that is refused are not begun again", async () => {
  const tree = new Script([[page("/d/a")], broken]);
  await assert.rejects(namesOf(listRows(tree, { path: "/d", recursive: true }, {})), { code: "unavailable" });
  const none = new Script([[], broken]);
  await assert.rejects(namesOf(listRows(none, { path: "/d" }, {})), { code: "unavailable" });
  const refused = new Script([[page("/d/a")], new HeadpondError("not-found", "/d is gone")]);
  await assert.rejects(namesOf(listRows(refused, { path: "/d" }, {})), { code: "not-found" });
  assert.deepEqual([tree.asked.length, none.asked.length, refused.asked.length], [1, 1, 1]);
});

test("a listing whose every master fails ends with the failure", async () => {
  const masters = new Script([[page("/d/a")], broken], ...Array.from({ length: 20 }, () => [[], broken] as const));
  await assert.rejects(namesOf(listRows(masters, { path: "/d" }, {})), { code: "unavailable" });
  assert.equal(masters.asked.length, 11);
});

const change = (index: number) => ({ index, timeMs: 1, kind: "created", path: `/c${index}` });
const changes = (...indexes: readonly number[]) => ({ events: indexes.map(change), index: indexes.at(-1) ?? 0 });

async function watched(
  masters: Script,
  fromIndex?: number,
): Promise<{ readonly indexes: number[]; readonly end: unknown }> {
  const clock = new ManualClock();
  const indexes: number[] = [];
  let end: unknown;
  const watching = (async () => {
    const options = fromIndex === undefined ? {} : { fromIndex };
    for await (const { index } of watchChanges({ masters, clock }, "/", options)) indexes.push(index);
    end = "ended";
  })().catch((error: unknown) => {
    end = error;
  });
  for (let round = 0; round < 40 && end === undefined; round++) await clock.advance(1000);
  await watching;
  return { indexes, end };
}

test("a watch goes on by index at the next master, and gives nothing twice", async () => {
  const masters = new Script(
    [[changes(3, 4), changes(7)], broken],
    // This one is behind, and then gives again what the other had given.
    [[{ events: [], index: 5 }, changes(7, 8)], new HeadpondError("not-leader", "it leads no more")],
    [[changes(9)]],
  );
  assert.deepEqual(await watched(masters, 3), { indexes: [3, 4, 7, 8, 9], end: "ended" });
  assert.deepEqual(
    masters.asked.map(({ fromIndex }) => fromIndex),
    [3, 8, 9],
  );
});

test("a watch from now misses nothing after its first answer", async () => {
  const masters = new Script([[{ events: [], index: 41 }], broken], [[changes(42)]]);
  assert.deepEqual(await watched(masters), { indexes: [42], end: "ended" });
  assert.deepEqual(
    masters.asked.map(({ fromIndex }) => fromIndex),
    [undefined, 42],
  );
});

test("a watch whose changes are not kept any more says so, and does not go on with a gap", async () => {
  const compacted = new HeadpondError("compacted", "changes before 90 are not kept");
  const { indexes, end } = await watched(new Script([[changes(5)], broken], [[], compacted]), 5);
  assert.deepEqual(indexes, [5]);
  assert.equal(end, compacted);
});
