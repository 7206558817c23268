import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { configurationReference, environmentName, formatHostPort, loadConfig, parseHostPort } from "./config.ts";
import { TiB } from "./units.ts";

test("flag beats environment beats file beats default", () => {
  const file = { master: { id: "file" } };
  const environment = { HEADPOND_MASTER_ID: "environment" };
  assert.equal(loadConfig({}).config["master.id"], "m1");
  assert.equal(loadConfig({ file }).config["master.id"], "file");
  assert.equal(loadConfig({ file, environment }).config["master.id"], "environment");
  const loaded = loadConfig({ file, environment, flags: { "master.id": "flag" } });
  assert.equal(loaded.config["master.id"], "flag");
  assert.equal(loaded.sources["master.id"], "flag");
  assert.equal(loaded.sources["master.dir"], "default");
});

test("values are read with their units", () => {
  const { config } = loadConfig({
    file: {
      worker: { dirs: [{ path: "/nvme0", capacity: "3TiB" }, { path: "/nvme1" }], data: "[::1]:7080" },
      master: { workerTimeout: "3s" },
    },
    environment: { HEADPOND_WORKER_MASTERS: "h1:7070, h2:7070" },
  });
  assert.deepEqual(config["worker.dirs"], [
    { path: "/nvme0", capacityBytes: 3 * TiB },
    { path: "/nvme1", capacityBytes: undefined },
  ]);
  assert.deepEqual(config["worker.data"], { host: "::1", port: 7080 });
  assert.deepEqual(config["worker.masters"], ["h1:7070", "h2:7070"]);
  assert.equal(config["master.workerTimeout"], 3000);
});

test("unknown keys and wrong units are errors that name the nearest right key", () => {
  assert.throws(
    () => loadConfig({ file: { master: { rcp: "h:1" } } }),
    /unknown key master\.rcp: did you mean master\.rpc\?/,
  );
  assert.throws(() => loadConfig({ file: { master: { workerTimeout: 3 } } }), /master\.workerTimeout.*no unit of time/);
  assert.throws(() => loadConfig({ environment: { HEADPOND_MASTER_RCP: "h:1" } }), /did you mean HEADPOND_MASTER_RPC/);
  assert.throws(() => loadConfig({ file: { worker: { dirs: [{ path: "/a", size: "1TiB" }] } } }), /unknown key size/);
  assert.throws(() => loadConfig({ file: [] }), /not a map/);
});

test("all problems are told at once", () => {
  const load = (): unknown => loadConfig({ file: { master: { rpc: "nowhere" }, worker: { place: "here" } } });
  assert.throws(load, (error: Error) => /master\.rpc/.test(error.message) && /worker\.place/.test(error.message));
});

test("parts that this version lacks are named as such", () => {
  const load = (): unknown => loadConfig({ file: { gateways: { s3: "h:1" } } });
  assert.throws(load, /does not have the S3 gateway/);
});

test("the founders of a Raft cluster are a map in the file and a list in the environment", () => {
  const file = {
    master: { id: "m1" },
    journal: {
      type: "raft",
      raft: {
        listen: "0.0.0.0:7072",
        members: { m1: "h1:7072", m2: "h2:7073" },
        electionTimeout: "250ms",
        heartbeat: "20ms",
      },
    },
  };
  const wanted = { m1: { host: "h1", port: 7072 }, m2: { host: "h2", port: 7073 } };
  const { config } = loadConfig({ file });
  assert.deepEqual(config["journal.raft.members"], wanted);
  assert.equal(config["journal.raft.electionTimeout"], 250);
  const environment = { HEADPOND_JOURNAL_RAFT_MEMBERS: "m1=h1:7072, m2=h2:7073" };
  assert.deepEqual(loadConfig({ environment }).config["journal.raft.members"], wanted);
  assert.deepEqual(loadConfig({}).config["journal.raft.members"], {});
});

test("ids and addresses of masters that cannot be right are refused", () => {
  const load = (members: unknown) => (): unknown => loadConfig({ file: { journal: { raft: { members } } } });
  assert.throws(load({ "m 1": "h1:7072" }), /"m 1" is no id of a master/);
  assert.throws(load({ m1: "h1" }), /"h1" is not host:port/);
  assert.throws(load({ m1: "h1:1", m2: "h1:1" }), /two members have the address h1:1/);
  assert.throws(load(["h1:1"]), /is not \{ m1: h1:7072/);
  assert.throws(() => loadConfig({ file: { master: { id: "../m1" } } }), /master\.id.*no id of a master/);
});

test("a heartbeat that does not fit the election timeout is refused", () => {
  const load = (heartbeat: string, electionTimeout: string) => (): unknown =>
    loadConfig({ file: { journal: { raft: { heartbeat, electionTimeout } } } });
  assert.throws(load("150ms", "300ms"), /heartbeat: 150ms does not fit an electionTimeout of 300ms/);
  assert.throws(load("0ms", "300ms"), /heartbeat: 0ms/);
  assert.doesNotThrow(load("100ms", "300ms"));
});

test("the ZooKeeper journal needs servers, a store, and a name where it has to prove who it is", () => {
  const load = (zookeeper: object) => (): unknown =>
    loadConfig({ file: { journal: { type: "zookeeper", zookeeper } } });
  const servers = ["zk1:2181", "zk2:2181"];
  const store = "file:///mnt/journal";
  assert.doesNotThrow(load({ servers, store }));
  assert.throws(load({ store }), /zookeeper\.servers: name the servers/);
  assert.throws(load({ servers }), /zookeeper\.store: say where the log is/);
  assert.throws(load({ servers, store, root: "headpond" }), /"headpond" is no node's path/);
  assert.throws(load({ servers, store, sessionTimeout: "50ms" }), /50ms is less than 100ms/);
  assert.throws(load({ servers, store, auth: "sasl", user: "u" }), /sasl needs user and passwordFile/);
  assert.throws(load({ servers, store, auth: "digest", user: "a:b", passwordFile: "/p" }), /no colon/);
  assert.throws(load({ servers, store, tlsKey: "/k" }), /goes with tlsCertificate/);
  const environment = {
    HEADPOND_JOURNAL_ZOOKEEPER_SERVERS: "zk1:2181, [::1]:2182",
    HEADPOND_JOURNAL_ZOOKEEPER_STORE_OPTIONS: "endpoint=https://h/?a=b,region=eu",
  };
  const { config } = loadConfig({ environment });
  assert.deepEqual(config["journal.zookeeper.servers"].map(formatHostPort), ["zk1:2181", "[::1]:2182"]);
  assert.deepEqual(config["journal.zookeeper.storeOptions"], { endpoint: "https://h/?a=b", region: "eu" });
});

test("other programs' variables are left alone", () => {
  loadConfig({ environment: { HEADPOND_MASTERS: "h:1", HEADPOND_OTHER: "x", PATH: "/bin" } });
});

test("keys become variable names word by word", () => {
  assert.equal(environmentName("journal.checkpointEvery"), "HEADPOND_JOURNAL_CHECKPOINT_EVERY");
});

test("addresses of both families go both ways", () => {
  for (const text of ["localhost:7070", "[::1]:80", "10.0.0.1:0"])
    assert.equal(formatHostPort(parseHostPort(text)), text);
  for (const wrong of ["", "h", "h:", "h:99999", "a:b:1", 7]) assert.throws(() => parseHostPort(wrong));
});

test("docs/configuration.md is what the settings say", () => {
  const file = readFileSync(new URL("../../docs/configuration.md", import.meta.url), "utf8");
  assert.equal(file, configurationReference(), "run: node bin/headpond config docs > docs/configuration.md");
});
