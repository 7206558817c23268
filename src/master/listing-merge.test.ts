import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Random } from "../base/random.ts";
import { compareCodePoints, compareEntries, type ListEntry } from "../under-store/under-store.ts";
import { type ChildrenSource, type KnownChild, ListingMerge } from "./listing-merge.ts";

function file(key: string, etag = "e1"): ListEntry {
  return { kind: "file", info: { key, sizeBytes: 1, etag, modifiedMs: 5 } };
}

function directory(key: string): ListEntry {
  return { kind: "directory", key };
}

function known(name: string, kind: "file" | "directory", more: Partial<KnownChild> = {}): KnownChild {
  const etag = kind === "file" ? "e1" : "";
  return {
    name,
    kind,
    sizeBytes: kind === "file" ? 1 : 0,
    etag,
    hasDigest: false,
    complete: true,
    ...more,
  };
}

/** As the namespace answers: in the order of names, in small reads. */
function sourceOf(children: readonly KnownChild[]): ChildrenSource {
  const sorted = [...children].sort((a, b) => compareCodePoints(a.name, b.name));
  return (afterName) => {
    const start = afterName === undefined ? 0 : sorted.findIndex(({ name }) => compareCodePoints(name, afterName) > 0);
    return start === -1 ? [] : sorted.slice(start, start + 3);
  };
}

describe("listing merge", () => {
  it("an unchanged directory gives no rows and no gone names, whatever the order of names and keys", () => {
    const entries = ["a", "a-b", "a-b-c", "a.b", "a0", "z"].flatMap((name) => [directory(`d/${name}`)]);
    const files = ["a!", "a-", "a-b!", "b"].map((name) => file(`d/${name}`));
    const sorted = [...entries, ...files].sort(compareEntries);
    const children = sorted.map((entry) =>
      entry.kind === "file" ? known(entry.info.key.slice(2), "file") : known(entry.key.slice(2), "directory"),
    );
    const merge = new ListingMerge(sourceOf(children));
    assert.deepEqual(merge.page(sorted), { rows: [], goneNames: [] });
    assert.deepEqual(merge.rest(10), []);
  });

  it("tells new, changed and gone apart", () => {
    const merge = new ListingMerge(sourceOf([known("changed", "file"), known("gone", "file"), known("same", "file")]));
    const page = merge.page([file("changed", "e2"), file("new"), file("same")]);
    assert.deepEqual(
      page.rows.map(({ name, etag }) => [name, etag]),
      [
        ["changed", "e2"],
        ["new", "e1"],
      ],
    );
    assert.deepEqual(page.goneNames, ["gone"]);
  });

  it("a file that is being written is neither changed nor gone by a listing", () => {
    const merge = new ListingMerge(
      sourceOf([known("listed", "file", { complete: false }), known("unlisted", "file", { complete: false })]),
    );
    assert.deepEqual(merge.page([file("listed", "e9")]), { rows: [], goneNames: [] });
    assert.deepEqual(merge.rest(10), []);
  });

  it("a file that became a directory is a new row, and its old self is gone by the same name", () => {
    const merge = new ListingMerge(sourceOf([known("x", "file")]));
    const page = merge.page([directory("x")]);
    assert.deepEqual(
      page.rows.map(({ name, kind }) => [name, kind]),
      [["x", "directory"]],
    );
  });

  it("agrees with a comparison of sets under random names, over pages of any size", () => {
    const seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 32));
    console.log(`seed ${seed}`);
    const random = new Random(seed);
    const letters = ["a", "-", "0", ".", "b", "\u{1F600}", "\uFFFD"];
    for (let round = 0; round < 200; round++) {
      const before = new Map<string, "file" | "directory">();
      const after = new Map<string, "file" | "directory">();
      for (let i = random.between(0, 60); i > 0; i--) {
        let name = "";
        for (let n = random.between(1, 4); n > 0; n--) name += random.pick(letters);
        if (name === "." || name === "..") continue;
        const kind = name.length % 2 === 0 ? "file" : "directory";
        if (random.chance(0.8)) before.set(name, kind);
        if (random.chance(0.8)) after.set(name, kind);
      }
      const entries = [...after]
        .map(([name, kind]) => (kind === "file" ? file(`p/${name}`) : directory(`p/${name}`)))
        .sort(compareEntries);
      const merge = new ListingMerge(sourceOf([...before].map(([name, kind]) => known(name, kind))));
      const rows: string[] = [];
      const gone: string[] = [];
      while (entries.length > 0) {
        const page = merge.page(entries.splice(0, random.between(1, 9)));
        rows.push(...page.rows.map(({ name }) => name));
        gone.push(...page.goneNames);
      }
      for (;;) {
        const more = merge.rest(2);
        if (more.length === 0) break;
        gone.push(...more);
      }
      assert.deepEqual(new Set(rows), new Set([...after.keys()].filter((name) => !before.has(name))));
      assert.deepEqual(new Set(gone), new Set([...before.keys()].filter((name) => !after.has(name))));
    }
  });
});
