import assert from "node:assert/strict";
import { test } from "node:test";
import type { FileDescriptor } from "../base/file.ts";
import type { FileVersionId, WorkerId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import type { Place } from "../base/place.ts";
import { type CopyInput, planCopies, surplusCopies } from "./job-copies.ts";

const file = (path: string, sizeBytes = 100, pinned = false): FileDescriptor =>
  ({ id: `id:${path}` as FileVersionId, path: path as Path, sizeBytes, pinned }) as FileDescriptor;
const worker = (id: string, roomBytes = 1000, place = "c/r/z/h"): CopyInput["workers"][number] => ({
  id: id as WorkerId,
  place: place as Place,
  roomBytes,
});

function plan(
  input: Pick<CopyInput, "wanted" | "workers">,
  whole: Readonly<Record<string, readonly string[]>> = {},
  underWay: Readonly<Record<string, readonly string[]>> = {},
): string[] {
  const tasks = planCopies({
    ...input,
    isWhole: (id, { path }) => whole[path]?.includes(id) === true,
    underWay: (path) => new Set((underWay[path] ?? []) as WorkerId[]),
  });
  return tasks.map(
    ({ path, workers, lacking }) => `${path} -> ${workers.join()}${lacking > 0 ? ` (${lacking} lack)` : ""}`,
  );
}

test("the files of a model go together, to who has most of it already; others one by one", () => {
  const wanted = [
    { file: file("/m/llm/a.safetensors"), copies: 1 },
    { file: file("/m/llm/config.json"), copies: 1 },
    { file: file("/data/x"), copies: 1 },
  ];
  const workers = [worker("w1", 5000), worker("w2")];
  assert.deepEqual(plan({ wanted, workers }, { "/m/llm/config.json": ["w2"] }), ["/m/llm -> w2", "/data/x -> w1"]);
});

test("a copy counts only where all files of the model are whole, and one that is under way counts", () => {
  const wanted = ["/m/a.bin", "/m/b.bin"].map((path) => ({ file: file(path), copies: 2 }));
  const workers = [worker("w1"), worker("w2"), worker("w3")];
  const whole = { "/m/a.bin": ["w1", "w2"], "/m/b.bin": ["w1"] };
  assert.deepEqual(plan({ wanted, workers }, whole), ["/m -> w2"]);
  assert.deepEqual(plan({ wanted, workers }, whole, { "/m": ["w3"] }), []);
});

test("nobody gets more than it has room for, and what nobody has room for is said", () => {
  const wanted = [
    { file: file("/a", 600), copies: 2 },
    { file: file("/b", 600), copies: 1 },
  ];
  assert.deepEqual(plan({ wanted, workers: [worker("w1", 1000), worker("w2", 700)] }), [
    "/a -> w1,w2",
    "/b ->  (1 lack)",
  ]);
});

test("a copy goes near to where it was, before anything else", () => {
  const near = "c/eu/z1/h1" as Place;
  const workers = [worker("far", 9000, "c/us/z1/h1"), worker("near", 1000, "c/eu/z2/h2")];
  assert.deepEqual(plan({ wanted: [{ file: file("/a"), copies: 1, near }], workers }), ["/a -> near"]);
});

test("copies beyond the most go from the fullest workers; what is pinned, or within, stays", () => {
  const holders = ["w1", "w2", "w3"] as WorkerId[];
  const rooms: Record<string, number> = { w1: 300, w2: 100, w3: 200 };
  const surplus = surplusCopies(
    [
      { file: file("/a"), max: 1, holders },
      { file: file("/b"), max: 3, holders },
      { file: file("/c", 1, true), max: 1, holders },
    ],
    (id) => rooms[id] ?? 0,
  );
  assert.deepEqual(Object.fromEntries(surplus), { w2: ["id:/a"], w3: ["id:/a"] });
});
