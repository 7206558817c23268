import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import type { ClusterId, MasterId } from "../base/ids.ts";
import { NodeClock } from "../io/node-clock.ts";
import type { JournalCluster, JournalMember, MemberChange } from "../journal/journal.ts";
import type { Core } from "./core.ts";
import { MemberService } from "./member-service.ts";

const { signal } = new AbortController();

function member(id: string, fields: Partial<JournalMember> = {}): JournalMember {
  return {
    id,
    address: `${id}:7072`,
    rpc: `${id}:7070`,
    http: `${id}:7071`,
    voter: true,
    leader: id === "m1",
    appliedIndex: 90,
    digestIndex: undefined,
    digest: undefined,
    reachable: true,
    featureLevel: 1,
    ...fields,
  };
}

/** As m1 sees it, which leads unless it is told not to. */
function service(
  members: readonly JournalMember[] | undefined,
  leads = true,
): { members: MemberService; changes: MemberChange[]; transfers: (string | undefined)[] } {
  const changes: MemberChange[] = [];
  const transfers: (string | undefined)[] = [];
  const cluster: JournalCluster | undefined =
    members === undefined
      ? undefined
      : {
          members: () => members,
          onMembersChange: () => {},
          changeMembers: async (change) => void changes.push(change),
          transferLeadership: async (id) => void transfers.push(id),
          freshnessMs: () => 0,
        };
  const core = {
    namespace: { applied: { index: 100, term: 3 }, digest: () => "abcd" },
    journal: { role: leads ? "leader" : "standby", status: () => ({ role: "leader", commitIndex: 100 }), cluster },
    requireLeader: () => {
      if (!leads) throw new HeadpondError("not-leader", "ask m2:7070", { details: { leader: "m2:7070" } });
    },
  } as unknown as Core;
  const addresses = (): { rpc: string; http: string } => ({ rpc: "own:7070", http: "own:7071" });
  const id = "m1" as MasterId;
  const clusterId = "c" as ClusterId;
  return { members: new MemberService({ core, clusterId, id, clock: new NodeClock(), addresses }), changes, transfers };
}

const code = (wanted: string) => (error: unknown) => isHeadpondError(error, wanted as "invalid");

test("a master knows itself best, and of the others what they reported", () => {
  const { members } = service([
    member("m1", { appliedIndex: 1 }),
    member("m2", { digest: "ffff", digestIndex: 80 }),
    member("m3", { voter: false, rpc: undefined, http: undefined, appliedIndex: undefined, reachable: false }),
  ]);
  assert.deepEqual(members.members(), {
    clusterId: "c",
    commitIndex: 100,
    members: [
      {
        id: "m1",
        address: "own:7070",
        role: "leader",
        appliedIndex: 100,
        digest: "abcd",
        digestIndex: 100,
        lagEntries: 0,
        voter: true,
        journalAddress: "m1:7072",
        http: "own:7071",
        reachable: true,
      },
      {
        id: "m2",
        address: "m2:7070",
        role: "standby",
        appliedIndex: 90,
        digest: "ffff",
        digestIndex: 80,
        lagEntries: 10,
        voter: true,
        journalAddress: "m2:7072",
        http: "m2:7071",
        reachable: true,
      },
      {
        id: "m3",
        address: "m3:7072",
        role: "standby",
        appliedIndex: 0,
        digest: "",
        lagEntries: 100,
        voter: false,
        journalAddress: "m3:7072",
        reachable: false,
      },
    ],
  });
});

test("what is so already is not changed again, so that every request may be repeated", async () => {
  const { members, changes } = service([member("m1"), member("m2")]);
  assert.deepEqual(await members.addMember({ id: "m2", address: "m2:7072" }, signal), { changed: false });
  assert.deepEqual(await members.promoteMember({ id: "m2" }, signal), { changed: false });
  assert.deepEqual(await members.removeMember({ id: "m7" }, signal), { changed: false });
  assert.deepEqual(changes, []);
  assert.deepEqual(await members.addMember({ id: "m3", address: "h3:7072" }, signal), { changed: true });
  assert.deepEqual(changes, [{ kind: "add", id: "m3", address: "h3:7072" }]);
});

test("an id that another disk has, a wrong address and an unknown member are refused", async () => {
  const { members, changes } = service([member("m1"), member("m2")]);
  await assert.rejects(members.addMember({ id: "m2", address: "elsewhere:7072" }, signal), code("already-exists"));
  await assert.rejects(members.addMember({ id: "m 3", address: "h3:7072" }, signal), code("invalid"));
  await assert.rejects(members.addMember({ id: "m3", address: "h3" }, signal), code("invalid"));
  await assert.rejects(members.promoteMember({ id: "m9" }, signal), /there are m1, m2/);
  assert.deepEqual(changes, []);
});

test("a removal that leaves no living majority is refused, that of the dead one is not", async () => {
  const { members, changes } = service([member("m1"), member("m2"), member("m3", { reachable: false })]);
  await assert.rejects(members.removeMember({ id: "m2" }, signal), /no majority would live: m3 cannot be reached/);
  await assert.rejects(members.removeMember({ id: "m1" }, signal), /no majority would live/);
  await members.removeMember({ id: "m3" }, signal);
  assert.deepEqual(changes, [{ kind: "remove", id: "m3" }]);
  await assert.rejects(service([member("m1")]).members.removeMember({ id: "m1" }, signal), /the only voter/);
});

test("leadership goes to voters only", async () => {
  const { members, transfers } = service([member("m1"), member("m2"), member("m3", { voter: false })]);
  await assert.rejects(members.transferLeadership({ id: "m3" }, signal), /m3 is a learner: promote it first/);
  await members.transferLeadership({}, signal);
  await members.transferLeadership({ id: "m2" }, signal);
  assert.deepEqual(transfers, [undefined, "m2"]);
  const alone = service([member("m1"), member("m2", { voter: false })]);
  await assert.rejects(alone.members.transferLeadership({}, signal), /no other voter/);
});

test("a standby names the leader, and a cluster of one master says what it would take", async () => {
  const standby = service([member("m1"), member("m2")], false);
  await assert.rejects(standby.members.removeMember({ id: "m2" }, signal), code("not-leader"));
  assert.equal(standby.members.members().members.length, 2, "it answers what it knows");
  const local = service(undefined);
  await assert.rejects(local.members.addMember({ id: "m2", address: "h:1" }, signal), /journal migrate --to raft/);
  assert.equal(local.members.members().members.length, 1);
});
