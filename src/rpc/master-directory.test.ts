import assert from "node:assert/strict";
import { test } from "node:test";
import type { MasterId } from "../base/ids.ts";
import type { MasterList } from "../base/masters.ts";
import { MasterDirectory } from "./master-directory.ts";

const ids = ["m1", "m2", "m3"];
const at = (id: string): string => `${id}:7070`;

/** What `self` says: who leads in which term, and who the masters are. */
function list(self: string, leader: string | undefined, term: number, members: readonly string[] = ids): MasterList {
  return {
    self: self as MasterId,
    term,
    ...(leader === undefined ? {} : { leader: leader as MasterId }),
    masters: members.map((id) => ({ id: id as MasterId, rpc: at(id), voter: true })),
  };
}

test("the leader of the highest term is believed, whoever says so, in whatever order", () => {
  const directory = new MasterDirectory([at("m1")]);
  assert.equal(directory.note(at("m1"), list("m1", "m1", 5)), true);
  assert.equal(directory.note(at("m2"), list("m2", "m3", 7)), true);
  assert.equal(directory.leader, at("m3"));
  assert.equal(directory.note(at("m1"), list("m1", "m1", 5)), false, "a paused leader that thaws is not believed");
  assert.equal(directory.note(at("m2"), list("m2", "m2", 6)), false);
  assert.equal(directory.hint(at("m1"), 6), false);
  assert.equal(directory.leader, at("m3"));
  assert.equal(directory.term, 7);
});

test("who says that it does not lead is not believed to in that term any more, and is in a later one", () => {
  const directory = new MasterDirectory([at("m1")]);
  directory.note(at("m1"), list("m1", "m1", 5));
  assert.equal(directory.deny(at("m1"), 5), true);
  assert.equal(directory.leader, undefined);
  assert.equal(directory.note(at("m2"), list("m2", "m1", 5)), false, "others have not heard of it yet");
  assert.equal(directory.note(at("m2"), list("m2", "m1", 6)), true);
  assert.equal(directory.leader, at("m1"));
});

test("a denial from an older term means nothing", () => {
  const directory = new MasterDirectory([at("m1")]);
  directory.note(at("m2"), list("m2", "m1", 6));
  assert.equal(directory.deny(at("m1"), 5), false, "it was elected since");
  assert.equal(directory.leader, at("m1"));
  assert.equal(directory.deny(at("m2"), 9), false, "it was not believed to lead");
});

test("nobody who knows of no leader takes away what is known", () => {
  const directory = new MasterDirectory([at("m1")]);
  directory.note(at("m1"), list("m1", "m1", 5));
  assert.equal(directory.note(at("m2"), list("m2", undefined, 6)), false);
  assert.equal(directory.leader, at("m1"));
});

test("before a leader was heard everybody who is named counts; then only whom the leader names", () => {
  const directory = new MasterDirectory(["seed:1"]);
  directory.note(at("m2"), list("m2", undefined, 1, ["m1", "m2"]));
  directory.note(at("m3"), list("m3", undefined, 1, ["m3"]));
  assert.deepEqual([...directory.members.keys()].sort(), ["m1", "m2", "m3"]);
  assert.equal(directory.isComplete, false);
  directory.note(at("m2"), list("m2", "m2", 2, ["m2", "m4"]));
  assert.equal(directory.isComplete, true);
  assert.deepEqual([...directory.members.keys()], ["m2", "m4"]);
  directory.note(at("m3"), list("m3", "m2", 2, ids));
  assert.deepEqual([...directory.members.keys()], ["m2", "m4"], "a master that was removed does not bring itself back");
  directory.note(at("m1"), list("m1", "m1", 1, ids));
  assert.deepEqual([...directory.members.keys()], ["m2", "m4"], "nor does an old leader");
  assert.deepEqual(directory.addresses, [at("m2"), at("m4"), "seed:1"]);
});

test("a master is asked where it was reached, as long as it is reached there", () => {
  const directory = new MasterDirectory(["localhost:7070"]);
  directory.note("localhost:7070", list("m1", "m1", 5));
  assert.equal(directory.leader, "localhost:7070");
  directory.note(at("m2"), list("m2", "m1", 5));
  assert.equal(directory.members.get("m1"), "localhost:7070");
  directory.unreachable("localhost:7070");
  directory.note(at("m2"), list("m2", "m1", 5));
  assert.equal(directory.members.get("m1"), at("m1"));
  assert.equal(directory.leader, at("m1"));
});

test("a single master that tells no address is where it was asked", () => {
  const directory = new MasterDirectory(["localhost:7070"]);
  const alone: MasterList = {
    self: "m1" as MasterId,
    term: 3,
    leader: "m1" as MasterId,
    masters: [{ id: "m1" as MasterId, voter: true }],
  };
  assert.equal(directory.note("localhost:7070", alone), true);
  assert.deepEqual(directory.addresses, ["localhost:7070"]);
  assert.equal(directory.leader, "localhost:7070");
});

test("of masters that tell no terms the last word counts", () => {
  const directory = new MasterDirectory([at("m1")]);
  assert.equal(directory.hint(at("m2"), undefined), true);
  assert.equal(directory.hint(at("m3"), undefined), true);
  assert.equal(directory.leader, at("m3"));
  assert.equal(directory.hint(at("m3"), undefined), false);
  directory.note(at("m1"), list("m1", "m1", 1));
  assert.equal(directory.hint(at("m2"), undefined), false, "once terms are known they decide");
});
