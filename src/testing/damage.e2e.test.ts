/** Damage at rest, as an operator meets it: what the master and the worker say, and that nothing wrong is served. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { open, readdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { Random } from "../base/random.ts";
import { MiB } from "../base/units.ts";
import { startRole } from "../cli/role-process.ts";
import { runCli, sha256, withCluster, writeModel } from "./cluster.ts";

async function flip(file: string, offset: number): Promise<void> {
  const handle = await open(file, "r+");
  try {
    const byte = Buffer.alloc(1);
    await handle.read(byte, 0, 1, offset);
    byte[0] = (byte[0] ?? 0) ^ 0x40;
    await handle.write(byte, 0, 1, offset);
  } finally {
    await handle.close();
  }
}

/** Where the text is in the file; a name in a command of the log. */
async function offsetOf(file: string, text: string): Promise<number> {
  const offset = (await readFile(file)).indexOf(text);
  assert.ok(offset > 0, `${text} is not in ${file}`);
  return offset;
}

type MasterCase = {
  readonly name: string;
  readonly harm: (files: { wal: string; checkpoint: string; master: string }) => Promise<void>;
  /** What `journal verify` names; undefined: it is not the journal that is damaged. */
  readonly verify?: RegExp;
  /** How the start fails; undefined: it starts, and shows everything. */
  readonly start?: RegExp;
};

const adviceForJournal = /Nothing was changed: .*journal verify --dir .* lists all damage/;

const masterCases: readonly MasterCase[] = [
  {
    name: "a flipped byte in the log",
    harm: async ({ wal }) => flip(wal, await offsetOf(wal, "flip-me-3")),
    verify: /segment-00000001-\d+\.wal: offset \d+, index \d+: the record's checksum does not match/,
    start: /"corrupt".*segment-00000001-\d+\.wal: offset \d+, index \d+: the record's checksum/,
  },
  {
    name: "two bytes of a record that changed places",
    harm: async ({ wal }) => {
      const at = (await offsetOf(wal, "swap-me-12")) + "swap-me-".length;
      const handle = await open(wal, "r+");
      await handle.write(Buffer.from("21"), 0, 2, at);
      await handle.close();
    },
    verify: /segment-00000001-\d+\.wal: offset \d+, index \d+/,
    start: /"corrupt".*segment-00000001-\d+\.wal: offset \d+, index \d+/,
  },
  {
    name: "a log that was cut short",
    harm: async ({ wal }) => truncate(wal, await offsetOf(wal, "flip-me-3")),
    verify: /\.wal: offset \d+: the file has \d+ bytes, its header says \d+: it was cut or extended/,
    start: /"corrupt".*\.wal: offset \d+: the file has \d+ bytes/,
  },
  {
    name: "a log that is gone",
    harm: async ({ wal }) => rm(wal),
    verify: /wal: offset 0: no WAL segment: the log is missing/,
    start: /"corrupt".*no WAL segment: the log is missing/,
  },
  {
    name: "a damaged description of the journal",
    harm: async ({ master }) => flip(join(master, "journal/journal.json"), 12),
    verify: /journal\.json: offset 0: damaged \(its checksum does not match\)/,
    start: /"corrupt".*journal\.json: offset 0: damaged/,
  },
  {
    name: "a flipped byte in a checkpoint, which the log makes up for",
    harm: async ({ checkpoint, master }) => {
      await flip(checkpoint, 20_000);
      await rm(join(master, "state"), { recursive: true });
    },
    verify: /checkpoint-\d+: offset 0: damaged checkpoint: its xxh64 is/,
  },
  {
    name: "a state file that was cut short",
    harm: async ({ master }) => truncate(join(master, "state/state.mdb"), 5000),
    start: /"corrupt".*state\.mdb.*move it away, the journal will rebuild it/,
  },
  {
    name: "a state file of zeros",
    harm: async ({ master }) => writeFile(join(master, "state/state.mdb"), Buffer.alloc(20_000)),
    start: /"corrupt".*state\.mdb.*move it away, the journal will rebuild it/,
  },
];

test("damage in a master's files is named with file and place, says what to do, and loses nothing", {
  timeout: 180_000,
}, async (t) => {
  await withCluster(0, async (cluster) => {
    await cluster.run("fs", "mkdir", "/d");
    for (const name of ["flip-me-1", "flip-me-3", "swap-me-12"]) await cluster.run("fs", "touch", `/d/${name}`);
    assert.equal((await cluster.run("journal", "checkpoint")).code, 0);
    await cluster.run("fs", "touch", "/d/after");
    await cluster.master.process.stop();
    const good = join(cluster.directory, "master");
    const walName = "journal/wal/segment-00000001-0000000000000001.wal";
    const checkpoints = await readdir(join(good, "journal/checkpoints"));
    const checkpointName = join("journal/checkpoints", checkpoints.find((name) => !name.endsWith(".json")) ?? "");

    const start = async (master: string): Promise<string> => {
      const config = join(cluster.directory, "damaged.yaml");
      await writeFile(config, JSON.stringify({ master: { dir: master, rpc: "127.0.0.1:0", http: "127.0.0.1:0" } }));
      try {
        const role = await startRole("damaged", ["master", "--config", config]);
        const listed = await runCli(
          ["fs", "ls", "/d", "--json", "--masters", role.ready.endpoints["rpc"] ?? ""],
          cluster.directory,
        );
        await role.process.stop("SIGKILL");
        return `started: ${listed.stdout.trim().split("\n").length}`;
      } catch (error) {
        return (error as Error).message;
      }
    };

    for (const { name, harm, verify, start: refused } of masterCases) {
      await t.test(name, async () => {
        const master = join(cluster.directory, "damaged");
        await rm(master, { recursive: true, force: true });
        assert.equal(spawnSync("cp", ["-a", "--sparse=always", good, master]).status, 0);
        await harm({ wal: join(master, walName), checkpoint: join(master, checkpointName), master });
        const verified = await runCli(["journal", "verify", "--dir", join(master, "journal")], cluster.directory);
        assert.equal(verified.code, verify === undefined ? 0 : 1, verified.stdout + verified.stderr);
        assert.match(verified.stdout, verify ?? /: good/);
        const result = await start(master);
        if (refused === undefined) {
          assert.equal(result, "started: 4");
          return;
        }
        assert.match(result, refused);
        if (verify !== undefined) {
          assert.match(result, adviceForJournal);
          return;
        }
        // What the message says to do helps.
        await rename(join(master, "state/state.mdb"), join(cluster.directory, "moved-away"));
        assert.equal(await start(master), "started: 4");
      });
    }
  });
});

test("damage in a worker's cache is named at its start or at the first read, and refetched, never served", {
  timeout: 120_000,
}, async (t) => {
  const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31);
  console.log(`seed ${seed}`);
  const random = new Random(seed);
  await withCluster(1, async (cluster) => {
    const contents = new Map<string, Uint8Array>();
    for (const name of ["a.bin", "b.bin", "c.bin"]) contents.set(name, random.bytes(9 * MiB + 11));
    await writeModel(join(cluster.directory, "store"), Object.fromEntries(contents));
    assert.equal((await cluster.run("mount", "/m", `file://${join(cluster.directory, "store")}`)).code, 0);
    const versions = join(cluster.directory, "worker-0/versions");
    /** The files of one version, by the content of its path. */
    const filesOf = async (name: string): Promise<{ data: string; index: string }> => {
      const { inodeId, contentVersion } = await cluster.json<{ inodeId: number; contentVersion: number }>(
        "fs",
        "stat",
        `/m/${name}`,
      );
      const base = join(versions, `${inodeId}-${contentVersion}`);
      return { data: `${base}.data`, index: `${base}.index` };
    };
    const harmed = async (name: string, harm: () => Promise<void>, named: RegExp): Promise<void> => {
      await t.test(name, async () => {
        assert.equal((await cluster.run("load", "/m")).code, 0);
        const { process: running } = cluster.workers[0] ?? assert.fail();
        await running.stop();
        await harm();
        await cluster.restartWorker(0);
        for (const [file, bytes] of contents) {
          const read = await cluster.run("fs", "cat", `/m/${file}`);
          assert.equal(sha256(read.bytes), sha256(bytes), `${file}: ${read.stderr}`);
        }
        assert.match(cluster.workers[0]?.process.log ?? "", named);
      });
    };
    await harmed(
      "flipped bytes in a data file",
      async () => {
        const { data } = await filesOf("a.bin");
        await flip(data, 5 * MiB);
        await flip(data, 9 * MiB);
      },
      /"block":1,"file":"[^"]*-\d+\.data".*is damaged/,
    );
    await harmed(
      "two data files that changed places",
      async () => {
        const [a, b] = [await filesOf("a.bin"), await filesOf("b.bin")];
        await rename(a.data, `${a.data}.other`);
        await rename(b.data, a.data);
        await rename(`${a.data}.other`, b.data);
      },
      /"block":0,"file":"[^"]*-\d+\.data".*is damaged/,
    );
    await harmed(
      "a data file that was cut short",
      async () => truncate((await filesOf("c.bin")).data, 5 * MiB),
      /-\d+\.data: 5242880 bytes, not 9437195; 2 blocks behind its end were dropped/,
    );
    await harmed(
      "a flipped byte in an index",
      async () => flip((await filesOf("b.bin")).index, 40),
      /-\d+\.index: .*dropped|-\d+\.index: .*trusted/,
    );
    await harmed(
      "an index that was cut short",
      async () => truncate((await filesOf("c.bin")).index, 10),
      /-\d+\.index: .*dropped|-\d+\.index: .*trusted/,
    );
  });
});
