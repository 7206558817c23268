/** Who should lead follows from the nodes alone, so it can be said of all small cases. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type CandidateNode,
  decodeCandidate,
  decodeClusterId,
  decodeLeader,
  electionPaths,
  encodeNode,
  isNextInLine,
  nodeBefore,
  parseCandidateName,
  rank,
} from "./election-nodes.ts";

function node(mark: string, number: number): CandidateNode {
  const candidate = { id: `id-${mark}`, rpc: "h:1", http: "h:2", featureLevel: 1, incarnation: mark };
  return { ...candidate, mark, number, name: `${mark}-${number}` };
}

const marksOf = (nodes: readonly CandidateNode[]): string => nodes.map(({ name }) => name).join(" ");
const leads = (mark: string, successor?: string) => ({ id: `id-${mark}`, mark, epoch: 7, successor });

test("the oldest leads when nobody has said that it does, or who said so is gone", () => {
  const nodes = [node("c", 3), node("a", 1), node("b", 2)];
  assert.equal(marksOf(rank(nodes, undefined).order), "a-1 b-2 c-3");
  assert.equal(marksOf(rank(nodes, leads("gone")).order), "a-1 b-2 c-3");
});

test("who said last that it leads keeps its place, however old the others are, and in another session", () => {
  const nodes = [node("a", 1), node("b", 2), node("c", 3)];
  assert.equal(marksOf(rank(nodes, leads("c")).order), "c-3 a-1 b-2");
  assert.equal(marksOf(rank([...nodes, node("a", 9)], leads("a")).order), "a-1 a-9 b-2 c-3");
});

test("a successor that was named goes before all, as long as it is there", () => {
  const nodes = [node("a", 1), node("b", 2), node("c", 3)];
  assert.equal(marksOf(rank(nodes, leads("gone", "c")).order), "c-3 a-1 b-2");
  assert.equal(marksOf(rank(nodes, leads("gone", "too")).order), "a-1 b-2 c-3");
});

test("each watches the one before it, the first nobody, and nobody itself", () => {
  const { order } = rank([node("a", 1), node("b", 2), node("c", 3), node("b", 4)], leads("b"));
  assert.equal(marksOf(order), "b-2 b-4 a-1 c-3");
  assert.equal(nodeBefore(order, "b"), undefined);
  assert.equal(nodeBefore(order, "a")?.name, "b-4");
  assert.equal(nodeBefore(order, "c")?.name, "a-1");
});

test("the next in line is the oldest beside the leader, if there is one that has said so", () => {
  const nodes = [node("a", 1), node("b", 2), node("c", 3)];
  const next = (mark: string, leader: Parameters<typeof rank>[1]): boolean => isNextInLine(rank(nodes, leader), mark);
  assert.deepEqual(
    ["a", "b", "c"].filter((mark) => next(mark, leads("b"))),
    ["a"],
  );
  assert.deepEqual(
    ["a", "b", "c"].filter((mark) => next(mark, leads("a"))),
    ["b"],
  );
  assert.deepEqual(
    ["a", "b", "c"].filter((mark) => next(mark, leads("gone"))),
    [],
  );
  assert.deepEqual(
    ["a", "b", "c"].filter((mark) => next(mark, undefined)),
    [],
  );
});

test("exactly one is first in every mixture of four candidacies, a leader and a successor", () => {
  const marks = ["a", "b", "c", "d"];
  let cases = 0;
  for (let present = 1; present < 16; present++) {
    for (const leader of [undefined, ...marks]) {
      for (const successor of [undefined, ...marks]) {
        const nodes = marks.filter((_, i) => (present & (1 << i)) !== 0).map((mark, i) => node(mark, i));
        const { order } = rank(nodes, leader === undefined ? undefined : leads(leader, successor));
        assert.equal(order.length, nodes.length);
        const watched = nodes.map(({ mark }) => nodeBefore(order, mark)?.mark);
        assert.equal(watched.filter((mark) => mark === undefined).length, 1, "one has nobody before it");
        assert.equal(new Set(watched).size, nodes.length, "nobody is watched by two");
        cases++;
      }
    }
  }
  assert.equal(cases, 15 * 25);
});

test("what nodes hold is read back, with fields of later releases left out", () => {
  const candidate = { id: "m1", rpc: "h:1", http: "h:2", featureLevel: 3, incarnation: "i" };
  assert.deepEqual(decodeCandidate(encodeNode(candidate)), candidate);
  assert.deepEqual(decodeLeader(encodeNode(leads("a", "b"))), leads("a", "b"));
  assert.equal(decodeLeader(Buffer.alloc(0)), undefined);
  assert.equal(decodeClusterId(encodeNode({ clusterId: "c" })), "c");
  const newer = Buffer.from(JSON.stringify({ version: 1, ...candidate, more: true }));
  assert.deepEqual(decodeCandidate(newer), candidate);
});

test("what no master of this release wrote is refused by what it holds", () => {
  assert.throws(() => decodeCandidate(Buffer.from("10.0.0.7")), /"10\.0\.0\.7" was not written by a master/);
  assert.throws(() => decodeCandidate(Buffer.from("[]")), { code: "unsupported" });
  assert.throws(() => decodeCandidate(Buffer.from('{"version":1,"id":"m1"}')), { code: "corrupt" });
  assert.throws(() => decodeLeader(Buffer.from('{"version":2}')), /node of version 2: this release reads 1/);
  assert.throws(() => decodeClusterId(Buffer.from("null")), { code: "corrupt" });
});

test("names of other nodes are nobody's", () => {
  const mark = "0123456789abcdef0123456789abcdef";
  assert.deepEqual(parseCandidateName(`${mark}-0000000042`), { mark, number: 42 });
  assert.deepEqual(parseCandidateName(`${mark}--2147483648`), { mark, number: -2147483648 });
  for (const name of ["", mark, `${mark}-42`, `x${mark}-0000000042`, "lock-0000000001"]) {
    assert.equal(parseCandidateName(name), undefined);
  }
});

test("a root may be any node, and the one of all nodes", () => {
  assert.equal(electionPaths("/headpond/prod").masters, "/headpond/prod/masters");
  assert.equal(electionPaths("/").leader, "/leader");
});
