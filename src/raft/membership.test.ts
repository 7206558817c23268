import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import {
  changed,
  configurationOf,
  decodeConfiguration,
  describeConfiguration,
  encodeConfiguration,
  isJoint,
  isVoter,
  Membership,
  type MembershipChange,
  membersOf,
  withoutOutgoing,
} from "./membership.ts";

const three = configurationOf(["a", "b", "c"]);

test("voters change through a joint configuration, learners alone in one step", () => {
  const joint = changed(three, [
    { type: "add-voter", id: "d", member: { address: "d:1", incarnation: "" } },
    { type: "remove", id: "a" },
  ]);
  assert.equal(describeConfiguration(joint), "(b c d)&&(a b c)");
  assert.equal(joint.members["d"]?.address, "d:1");
  assert.equal(describeConfiguration(withoutOutgoing(joint)), "(b c d)");
  assert.equal(describeConfiguration(changed(three, [{ type: "add-learner", id: "d" }])), "(a b c) learners(d)");
});

test("a learner is promoted, a voter demoted, an address replaced", () => {
  const withLearner = changed(three, [{ type: "add-learner", id: "d" }]);
  assert.equal(describeConfiguration(changed(withLearner, [{ type: "add-voter", id: "d" }])), "(a b c d)&&(a b c)");
  const demoted = changed(three, [{ type: "add-learner", id: "c" }]);
  assert.equal(describeConfiguration(demoted), "(a b)&&(a b c) learners(c)");
  // Until the joint state is left, it still votes.
  assert.equal(isVoter(demoted, "c"), true);
  assert.deepEqual(membersOf(demoted), ["a", "b", "c"]);
  const moved = changed(three, [{ type: "add-voter", id: "a", member: { address: "elsewhere:1", incarnation: "x" } }]);
  assert.equal(isJoint(moved), false);
  assert.equal(moved.members["a"]?.address, "elsewhere:1");
});

test("a member that is described anew keeps its part", () => {
  const withLearner = changed(three, [{ type: "add-learner", id: "d" }]);
  const member = { address: "d:2", incarnation: "i", rpc: "d:3", http: "d:4" };
  const described = changed(withLearner, [
    { type: "describe", id: "d", member },
    { type: "describe", id: "a", member: { address: "a:1", incarnation: "j" } },
  ]);
  assert.equal(describeConfiguration(described), "(a b c) learners(d)");
  assert.deepEqual(described.members["d"], member);
  assert.deepEqual(decodeConfiguration(encodeConfiguration(described)), described);
  assert.throws(() => changed(described, [{ type: "describe", id: "d", member }]), { code: "invalid" });
});

test("impossible changes are refused with what is wrong", () => {
  const refused = (changes: MembershipChange[], message: RegExp): void => {
    assert.throws(() => changed(three, changes), { code: "invalid", message });
  };
  refused([{ type: "remove", id: "x" }], /x is no member/);
  refused([{ type: "describe", id: "x", member: { address: "x:1", incarnation: "" } }], /x is no member/);
  refused([{ type: "add-voter", id: "a" }], /nothing changes/);
  refused([{ type: "add-voter", id: "" }], /needs an id/);
  refused(
    three.voters.map((id) => ({ type: "remove", id })),
    /without voters/,
  );
});

const seed = Math.floor(Math.random() * 2 ** 32);

test(`from any configuration, any change leads to one whose quorums meet the old ones (seed ${seed})`, () => {
  const random = new Random(seed);
  let current = three;
  for (let i = 0; i < 500; i++) {
    const changes = Array.from({ length: random.between(1, 3) }, (): MembershipChange => {
      return { type: random.pick(["add-voter", "add-learner", "remove"] as const), id: random.pick([..."abcdefg"]) };
    });
    let next: typeof current;
    try {
      next = changed(current, changes);
    } catch {
      continue;
    }
    assert.deepEqual(decodeConfiguration(encodeConfiguration(next)), next);
    // What decides in the joint configuration is a majority of the old and of the new voters.
    if (isJoint(next)) assert.deepEqual(next.outgoing, current.voters);
    else assert.deepEqual(next.voters, current.voters);
    current = withoutOutgoing(next);
    assert.ok(current.voters.length > 0);
    assert.deepEqual(
      current.voters.filter((id) => current.learners.includes(id)),
      [],
    );
  }
});

test("bytes that are no configuration are corrupt", () => {
  for (const text of ["", "{}", '{"voters":[1],"outgoing":[],"learners":[],"members":{}}', "null"]) {
    assert.throws(() => decodeConfiguration(new TextEncoder().encode(text)), { code: "corrupt" });
  }
});

test("hazard 19: truncation, a snapshot and forgetting leave the right configuration in force", () => {
  const [four, five] = [configurationOf(["a", "b", "c", "d"]), configurationOf(["a", "b", "c", "d", "e"])];
  const membership = new Membership([{ index: 0, configuration: three }]);
  membership.append(5, four);
  membership.append(9, five);
  assert.deepEqual([membership.at(4), membership.at(5), membership.at(8)], [three, four, four]);
  assert.equal(membership.truncate(10), false);
  assert.equal(membership.truncate(9), true);
  assert.deepEqual([membership.current, membership.index], [four, 5]);
  membership.forgetBefore(7);
  assert.deepEqual([membership.at(4), membership.at(7)], [undefined, four]);
  membership.reset(20, three);
  assert.deepEqual([membership.current, membership.at(19)], [three, undefined]);
});

test("who is on its way out may stand until that is committed", () => {
  const membership = new Membership([{ index: 0, configuration: three }]);
  membership.append(5, changed(three, [{ type: "remove", id: "a" }]));
  membership.append(6, configurationOf(["b", "c"]));
  assert.equal(membership.isVoterSince(5, "a"), true);
  assert.equal(membership.isVoterSince(6, "a"), false);
  assert.equal(membership.isVoterSince(0, "x"), false);
});
