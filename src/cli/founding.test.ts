import assert from "node:assert/strict";
import { test } from "node:test";
import { type Config, loadConfig } from "../base/config.ts";
import { journalOfFirstStart, journalToFormat } from "./founding.ts";

const three = { m1: "h1:7072", m2: "h2:7072", m3: "h3:7072" };
const uuid = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/;

function raft(members: object, more: { readonly id?: string; readonly cluster?: string } = {}): Config {
  const { id = "m1", cluster } = more;
  return loadConfig({
    file: {
      ...(cluster === undefined ? {} : { cluster: { id: cluster } }),
      master: { id },
      journal: { type: "raft", raft: { members } },
    },
  }).config;
}

test("a local journal and the only founder of a Raft cluster get an id of their own, a new one each time", () => {
  for (const config of [loadConfig({}).config, raft({ m1: "h1:7072" })]) {
    const [one, two] = [journalOfFirstStart(config), journalToFormat(config, undefined)];
    assert.match(one.clusterId, uuid);
    assert.notEqual(one.clusterId, two.clusterId);
  }
});

test("several founders must be given one id: they are told a fresh one, and found nothing", () => {
  const config = raft(three);
  const suggestion = (run: () => unknown): string => {
    try {
      run();
    } catch (error) {
      const { message } = error as Error;
      assert.match(message, /headpond format --cluster-id/);
      return uuid.exec(message)?.[0] ?? "";
    }
    return assert.fail("it was formatted");
  };
  const suggested = [
    suggestion(() => journalToFormat(config, undefined)),
    suggestion(() => journalToFormat(config, undefined)),
    suggestion(() => journalOfFirstStart(config)),
  ];
  assert.equal(new Set(suggested).size, 3, "never the same id, least of all one that a former cluster had");
  const given = journalToFormat(config, suggested[0]);
  assert.deepEqual(given, { type: "raft", id: "m1", founders: three, clusterId: suggested[0] });
});

test("with cluster.id an empty directory is never founded by a start: all disks of a cluster that was there may be gone", () => {
  const local = loadConfig({ file: { cluster: { id: "eu-1" } } }).config;
  for (const config of [raft(three, { cluster: "eu-1" }), raft({ m1: "h1:7072" }, { cluster: "eu-1" }), local]) {
    assert.throws(() => journalOfFirstStart(config), {
      code: "not-found",
      message: /eu-1 \(cluster\.id\).*headpond format.*--replace.*journal restore/,
    });
    assert.equal(journalToFormat(config, undefined).clusterId, "eu-1");
  }
});

test("who is no founder is told how to join instead", () => {
  assert.throws(
    () => journalToFormat(raft(three, { id: "m4", cluster: "eu-1" }), undefined),
    /m4 .*is not in.*m1, m2, m3.*--join/,
  );
  assert.throws(() => journalToFormat(raft({}, { cluster: "eu-1" }), undefined), /members is empty.*--join/);
  assert.throws(() => journalToFormat(raft(three), "not an id"), /is no id of a cluster/);
});
