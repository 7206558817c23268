/**
 * Three masters whose journal is in a shared directory, elected by ZooKeeper: the second of the two journals. The ensemble is a real one
 * (Debian's `zookeeper`, three servers). While a writer makes files one after the other the primary is killed (SIGKILL), all of
 * ZooKeeper is stopped and started again, and leadership is handed over; nothing that was acknowledged is lost. Everything is stopped at the end.
 *
 *   node scripts/run.mjs examples/three-masters-zookeeper.ts
 */

import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePortBlock, headpondBin, type StartedRole, startConfiguredRole } from "../src/cli/role-process.ts";
import { connect, type HeadpondClient } from "../src/client/client.ts";
import { hasZooKeeper, withZooKeeper, type ZooKeeperEnsemble } from "../src/testing/zookeeper-ensemble.ts";

const masterIds = ["m1", "m2", "m3"];
/** How long the writer writes after each event. */
const afterMs = 2000;
/** Longer than any session with ZooKeeper. */
const withoutZooKeeperMs = 4000;

async function main(): Promise<void> {
  if (!(await hasZooKeeper())) throw new Error("this example needs ZooKeeper: apt-get install zookeeper");
  const directory = await mkdtemp(join(tmpdir(), "headpond-zookeeper-"));
  try {
    step(`Three servers of ZooKeeper, a shared directory and three masters, below ${directory}`);
    await withZooKeeper(directory, (ensemble) => withMasters(directory, ensemble));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function withMasters(directory: string, ensemble: ZooKeeperEnsemble): Promise<void> {
  const store = join(directory, "shared");
  await mkdir(store);
  const port = await freePortBlock(masterIds.length * 2);
  const roles = new Map<string, StartedRole>();
  const configOf = (id: string): object => {
    const own = port + masterIds.indexOf(id) * 2;
    const servers = ensemble.servers.map((server) => `${server.host}:${server.port}`);
    return {
      cluster: { name: "three-masters-zookeeper" },
      master: { id, dir: join(directory, id), rpc: `127.0.0.1:${own}`, http: `127.0.0.1:${own + 1}` },
      journal: { type: "zookeeper", zookeeper: { servers, root: "/headpond/example", store: `file://${store}` } },
    };
  };
  const start = async (id: string): Promise<void> => {
    roles.set(id, await startConfiguredRole(id, "master", directory, configOf(id)));
  };
  const masters = masterIds.map((_, index) => `127.0.0.1:${port + index * 2}`);
  try {
    // The first one founds the cluster in the store; the others find it there.
    const [first] = masterIds as [string];
    await headpond(["format", ...(await configFile(directory, first, configOf(first)))]);
    await Promise.all(masterIds.map(start));
    await headpond(["cluster", "status"], masters);

    const client = connect({ masters, clientName: "example" });
    const writer = await Writer.begin(client);
    try {
      step("The primary is killed");
      const killed = await leaderOf(client);
      await sleep(afterMs);
      writer.beginPhase();
      roles.get(killed)?.process.child.kill("SIGKILL");
      say(`  ${killed} led (pid ${roles.get(killed)?.process.pid}): kill -9`);
      await writer.acknowledges();
      say(`  ${await leaderOf(client)} leads now`);
      await sleep(afterMs);
      say(`  longest pause of the writer ${Math.round(writer.longestPauseMs)} ms`);
      await start(killed);

      step("All of ZooKeeper is stopped: the primary goes on as long as it has the store");
      const before = await leaderOf(client);
      writer.beginPhase();
      for (const index of ensemble.servers.keys()) await ensemble.stop(index);
      await sleep(withoutZooKeeperMs);
      say(`  ${writer.acknowledged.length} files so far, longest pause ${Math.round(writer.longestPauseMs)} ms`);
      await Promise.all([...ensemble.servers.keys()].map((index) => ensemble.start(index)));
      say(`  ZooKeeper is back; ${before} led, ${await leaderOf(client)} leads`);

      step("Leadership is handed over");
      await allThere(client);
      writer.beginPhase();
      await headpond(["cluster", "transfer"], masters);
      await sleep(afterMs);
      say(`  longest pause of the writer ${Math.round(writer.longestPauseMs)} ms`);
    } finally {
      await writer.stop();
    }

    step("Everything that was acknowledged is there");
    const found = new Set<string>();
    for await (const { path } of client.list("/log")) found.add(path);
    const missing = writer.acknowledged.filter((path) => !found.has(path));
    say(
      `  ${writer.acknowledged.length - missing.length} of ${writer.acknowledged.length} files, ${writer.failed} failed`,
    );
    await headpond(["cluster", "status"], masters);
    await client.close();
    say(`  epochs in the store: ${(await readdir(join(store, "epochs"))).length}`);
    if (missing.length > 0) throw new Error(`${missing.length} acknowledged files are lost: ${missing[0]} ...`);
    if (writer.failed > 0) throw new Error(`${writer.failed} files were refused`);
  } finally {
    for (const id of [...roles.keys()].reverse()) await roles.get(id)?.process.stop();
  }
}

/** Makes one file after the other, and notes what was acknowledged and how long the longest wait was. */
class Writer {
  readonly #client: HeadpondClient;
  readonly #running: Promise<void>;
  readonly acknowledged: string[] = [];
  failed = 0;
  longestPauseMs = 0;
  #lastMs = performance.now();
  #stopped = false;

  private constructor(client: HeadpondClient) {
    this.#client = client;
    this.#running = this.#run();
  }

  static async begin(client: HeadpondClient): Promise<Writer> {
    await client.mkdir("/log");
    return new Writer(client);
  }

  beginPhase(): void {
    this.longestPauseMs = 0;
  }

  /** Resolves when what is asked for from now on is acknowledged. */
  async acknowledges(): Promise<void> {
    // The one under way may have been acknowledged before.
    const enough = this.acknowledged.length + 2;
    while (this.acknowledged.length < enough) await sleep(5);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    for (let number = 0; !this.#stopped; number++) {
      const path = `/log/${String(number).padStart(8, "0")}`;
      try {
        await this.#client.create(path, { exclusive: true });
        this.acknowledged.push(path);
      } catch (error) {
        this.failed++;
        say(`  ${path}: ${(error as Error).message}`);
      }
      const nowMs = performance.now();
      this.longestPauseMs = Math.max(this.longestPauseMs, nowMs - this.#lastMs);
      this.#lastMs = nowMs;
    }
  }
}

async function leaderOf(client: HeadpondClient): Promise<string> {
  for (;;) {
    const { masters } = await client.cluster();
    const leader = masters.find(({ role, reachable }) => role === "leader" && reachable !== false);
    if (leader !== undefined) return leader.id;
    await sleep(20);
  }
}

/** Waits until every master takes part. */
async function allThere(client: HeadpondClient): Promise<void> {
  for (;;) {
    const { masters } = await client.cluster();
    if (masters.length === masterIds.length && masters.every(({ reachable }) => reachable !== false)) return;
    await sleep(20);
  }
}

/** For a command that needs the configuration before the master has been started with it. */
async function configFile(directory: string, id: string, config: object): Promise<readonly string[]> {
  const file = join(directory, `${id}.yaml`);
  // JSON is YAML.
  await writeFile(file, JSON.stringify(config));
  return ["--config", file];
}

/** Runs a command as a person would, and shows it. */
async function headpond(args: readonly string[], masters: readonly string[] = []): Promise<void> {
  say(`  $ headpond ${args.join(" ")}`);
  const seeds = masters.length === 0 ? [] : ["--masters", masters.join(",")];
  const child = spawn(process.execPath, [headpondBin, ...args, ...seeds], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const code = await new Promise<number | null>((done) => child.once("close", done));
  for (const line of output.trimEnd().split("\n")) say(`  ${line}`.trimEnd());
  if (code !== 0) throw new Error(`headpond ${args.join(" ")} ended with ${code}`);
}

function step(text: string): void {
  say(`\n== ${text}`);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

await main();
