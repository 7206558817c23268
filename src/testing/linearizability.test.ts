import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { checkLinearizable, type Verdict } from "./linearizability.ts";
import { type Corruption, countCorruptions, pathCorruptions } from "./linearizability-corruptions.ts";
import { countHistory, type GeneratorOptions, pathHistory } from "./linearizability-generator.ts";
import type { Model, Operation } from "./linearizability-model.ts";
import { countModel, type PathInput, type PathOutput, pathModel } from "./linearizability-models.ts";

type PathOperation = Operation<PathInput, PathOutput>;

/** `A 1-3 create /a x: ok@1`; `A 1-? …` never returned, `A 1-! …` was refused. */
function parseOperation(line: string): PathOperation {
  const match = /^(\w+) (\d+)-(\d+|\?|!) (\w+) ([^\s:]+)(?: ([^\s:]+))??(?: if (\d+))?(?:: (.*))?$/.exec(line);
  assert.ok(match, line);
  const [, client = "", from, to = "", kind, path = "", argument = "", ifVersion, answer = ""] = match;
  const calledAt = Number(from);
  if (to === "?") return { client, input: inputOf(), calledAt, outcome: { kind: "unknown" } };
  if (to === "!") return { client, input: inputOf(), calledAt, outcome: { kind: "refused" } };
  return { client, input: inputOf(), calledAt, outcome: { kind: "returned", at: Number(to), output: outputOf() } };

  function inputOf(): PathInput {
    if (kind === "create") return { kind, path, value: argument };
    if (kind === "set") return { kind, path, value: argument, ...(ifVersion ? { ifVersion: Number(ifVersion) } : {}) };
    if (kind === "rename") return { kind, from: path, to: argument };
    if (kind === "remove" || kind === "stat") return { kind, path };
    throw new Error(line);
  }

  function outputOf(): PathOutput {
    const [what = "", version = ""] = answer.split("@");
    if (what === "not-found" || what === "already-exists") return { code: what };
    if (what === "mismatch") return { code: "version-mismatch", version: Number(version) };
    if (what === "ok") return { code: "ok", version: Number(version) };
    return { code: "ok", value: what, version: Number(version) };
  }
}

/** The scripted histories: `+ name` (right) or `- name` (wrong), then the operations. */
async function scripted(): Promise<{ name: string; right: boolean; operations: PathOperation[] }[]> {
  const text = await readFile(new URL("testdata/histories.txt", import.meta.url), "utf8");
  const result: { name: string; right: boolean; operations: PathOperation[] }[] = [];
  for (const line of text.split("\n").filter((one) => one !== "" && !one.startsWith("#"))) {
    if (/^[+-] /.test(line)) result.push({ name: line.slice(2), right: line.startsWith("+"), operations: [] });
    else result.at(-1)?.operations.push(parseOperation(line.trim()));
  }
  return result;
}

for (const { name, right, operations } of await scripted()) {
  test(`${right ? "right" : "wrong"}: ${name}`, () => {
    assert.ok(operations.length > 0);
    const verdict = checkLinearizable(pathModel, operations);
    assert.equal(verdict.kind, right ? "linearizable" : "violation", describe(verdict));
    // The order in which a history is written down says nothing.
    assert.equal(checkLinearizable(pathModel, operations.toReversed()).kind, verdict.kind);
  });
}

test("there are enough scripted histories of both kinds", async () => {
  const all = await scripted();
  assert.ok(all.length >= 60 && all.filter(({ right }) => right).length >= 20, `${all.length}`);
});

const seedOfRun = Number(process.env["SEED"] ?? randomInt(1, 2 ** 31));

function optionsOf(seed: number): GeneratorOptions {
  const random = new Random(seed);
  return {
    seed,
    operations: random.between(5, 100),
    clients: random.between(1, 8),
    keys: random.between(1, 4),
    unknown: random.pick([0, 0.05, 0.1]),
    refused: random.pick([0, 0.1]),
    renames: random.chance(0.5),
  };
}

test("every execution of the model is found right, whatever overlaps and stays unknown", (t) => {
  t.diagnostic(`SEED=${seedOfRun}`);
  for (let seed = seedOfRun; seed < seedOfRun + 400; seed++) {
    const options = optionsOf(seed);
    const paths = checkLinearizable(pathModel, pathHistory(options).operations);
    assert.equal(paths.kind, "linearizable", `seed ${seed}: ${describe(paths)}`);
    const counts = checkLinearizable(countModel, countHistory(options).operations);
    assert.equal(counts.kind, "linearizable", `seed ${seed}: ${describe(counts)}`);
  }
});

/** Tries every order: slow, and too simple to be wrong. */
function hasOrder<State, Input, Output>(
  model: Model<State, Input, Output>,
  state: State,
  left: readonly Operation<Input, Output>[],
): boolean {
  if (left.every(({ outcome }) => outcome.kind !== "returned")) return true;
  return left.some((one) => {
    if (one.outcome.kind === "refused") return false;
    if (left.some(({ outcome }) => outcome.kind === "returned" && outcome.at < one.calledAt)) return false;
    const next = model.step(state, one.input, one.outcome.kind === "returned" ? one.outcome.output : undefined);
    return (
      next !== undefined &&
      hasOrder(
        model,
        next,
        left.filter((other) => other !== one),
      )
    );
  });
}

test("small histories with exchanged answers get the verdict of trying every order", (t) => {
  t.diagnostic(`SEED=${seedOfRun}`);
  const random = new Random(seedOfRun);
  const found = { right: 0, wrong: 0 };
  for (let seed = seedOfRun; seed < seedOfRun + 3000; seed++) {
    const small = { seed, operations: 8, clients: random.between(2, 6), keys: random.between(1, 3), refused: 0.1 };
    const { operations } = pathHistory({ ...small, unknown: random.pick([0, 0.3, 0.5]), renames: random.chance(0.5) });
    const returned = operations.filter(({ outcome }) => outcome.kind === "returned");
    const [a, b] = random.shuffle([...returned]);
    const mixed = operations.map((one) => {
      if (one !== a || one.outcome.kind !== "returned" || b?.outcome.kind !== "returned") return one;
      return { ...one, outcome: { ...one.outcome, output: b.outcome.output } };
    });
    const right = hasOrder(pathModel, pathModel.initial, mixed);
    found[right ? "right" : "wrong"]++;
    const verdict = checkLinearizable(pathModel, mixed);
    assert.equal(verdict.kind, right ? "linearizable" : "violation", `seed ${seed}: ${describe(verdict)}`);
  }
  t.diagnostic(`${found.right} right, ${found.wrong} wrong`);
  assert.ok(found.right > 300 && found.wrong > 300);
});

/** Enough to be sure, and no more than it takes. */
const corruptedMax = 60;
const seedsMax = 5000;

function findsAll<Input, Output>(
  corruption: Corruption<Operation<Input, Output>>,
  make: (options: GeneratorOptions) => readonly Operation<Input, Output>[],
  check: (history: readonly Operation<Input, Output>[]) => Verdict,
): number {
  let applied = 0;
  for (let seed = seedOfRun; seed < seedOfRun + seedsMax && applied < corruptedMax; seed++) {
    const wrong = corruption.apply(make(optionsOf(seed)), new Random(seed));
    if (wrong === undefined) continue;
    applied++;
    const verdict = check(wrong);
    assert.equal(verdict.kind, "violation", `seed ${seed}: ${describe(verdict)}`);
  }
  return applied;
}

for (const corruption of pathCorruptions) {
  test(`found out whenever ${corruption.name}`, (t) => {
    const applied = findsAll(
      corruption,
      (options) => pathHistory(options).operations,
      (history) => checkLinearizable(pathModel, history),
    );
    t.diagnostic(`SEED=${seedOfRun}: ${applied} histories`);
    assert.equal(applied, corruptedMax, "so many histories have a place for it");
  });
}

for (const corruption of countCorruptions) {
  test(`found out whenever ${corruption.name}`, (t) => {
    const applied = findsAll(
      corruption,
      (options) => countHistory(options).operations,
      (history) => checkLinearizable(countModel, history),
    );
    t.diagnostic(`SEED=${seedOfRun}: ${applied} histories`);
    assert.equal(applied, corruptedMax, "so many histories have a place for it");
  });
}

test("10,000 operations of 10 clients on 20 keys take few steps for each", (t) => {
  for (const renames of [false, true]) {
    const { operations } = pathHistory({
      ...{ seed: seedOfRun, operations: 10_000, clients: 10, keys: 20, unknown: 0.01, refused: 0.01, renames },
    });
    const startMs = performance.now();
    const verdict = checkLinearizable(pathModel, operations);
    t.diagnostic(`SEED=${seedOfRun}: ${Math.round(performance.now() - startMs)} ms, ${describe(verdict)}`);
    assert.ok(verdict.kind === "linearizable");
    assert.ok(verdict.steps < 40 * operations.length, `${verdict.steps} steps`);
  }
});

test("a search that meets its limit says that it does not know", () => {
  const { operations } = countHistory({ ...optionsOf(3), operations: 100, unknown: 0 });
  const verdict = checkLinearizable(countModel, operations, { stepsMax: 10 });
  assert.equal(verdict.kind, "undecided");
});

test("a part that is wrong beyond doubt is told, though another meets the limit", () => {
  const wrong = ["A 1-2 create /z x: ok@1", "A 3-4 stat /z: not-found"].map(parseOperation);
  const { operations } = pathHistory({ ...optionsOf(5), operations: 3000, keys: 1, unknown: 0 });
  assert.equal(checkLinearizable(pathModel, [...wrong, ...operations], { stepsMax: 1000 }).kind, "violation");
});

test("the explanation names the keys, the last operations in order, the state, and what cannot follow", () => {
  const lines = ["A 1-2 create /a x: ok@1", "B 3-4 set /a y: ok@2", "C 5-6 stat /a: x@1", "D 1-9 stat /b: not-found"];
  const verdict = checkLinearizable(pathModel, lines.map(parseOperation));
  assert.equal(
    describe(verdict),
    [
      "/a: not linearizable. At best 2 of 3 operations can be put in order, the last of them",
      "  [1, 2] A: create /a = x → ok@1",
      "  [3, 4] B: set /a = y → ok@2",
      "after which the state is /a=y@2, where none of these can follow",
      "  [5, 6] C: stat /a → x@1",
    ].join("\n"),
  );
});

function describe(verdict: Verdict): string {
  return verdict.kind === "violation" ? verdict.explanation : JSON.stringify(verdict);
}
