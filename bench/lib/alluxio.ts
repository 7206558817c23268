/**
 * Alluxio 2.9.6 as a peer: three masters with the embedded (Raft) journal, or with the one in a shared directory and a ZooKeeper server, on
 * loopback, defaults otherwise, asked by its own Java client (`alluxio/Driver.java`). Its jars come from Maven Central into `.cache/` the first time; without Maven, a JDK or the
 * network it is left out, and said so. A write is one mkdir: one request and one flush of the journal.
 */

import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { access, mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { freePorts, ServerProcess } from "../../src/cli/role-process.ts";
import type { FailoverResult, LoadResult, Peer } from "./peer.ts";
import { cpuSeconds } from "./processes.ts";

const release = "2.9.6";
const sources = fileURLToPath(new URL("alluxio/", import.meta.url));
const library = fileURLToPath(new URL(`../../.cache/alluxio-${release}/`, import.meta.url));
const readyTimeoutMs = 120_000;
const failoverTimeoutMs = 120_000;
const failoverThreads = 8;

/** What code of that age reaches into by reflection, and a JDK 17 no longer opens by itself. */
const opened = [
  ...["java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util"],
  ...["java.util.concurrent", "java.util.concurrent.atomic", "java.text", "java.time"],
  ...["sun.nio.ch", "sun.nio.fs", "jdk.internal.misc", "jdk.internal.ref"],
];
const javaOptions = [
  ...opened.flatMap((name) => ["--add-opens", `java.base/${name}=ALL-UNNAMED`]),
  ...["--add-exports", "java.base/jdk.internal.misc=ALL-UNNAMED"],
  "-Djava.net.preferIPv4Stack=true",
  `-Dlog4j2.configurationFile=${join(library, "log4j2.xml")}`,
  `-Dlog4j.configurationFile=${join(library, "log4j2.xml")}`,
  ...["-cp", `${join(library, "classes")}:${join(library, "jars")}/*`],
];

export type AlluxioJournal = "raft" | "zookeeper";

/** Undefined where it cannot be had; `note` then says why. */
export async function startAlluxio(
  directory: string,
  note: (text: string) => void,
  journalKind: AlluxioJournal = "raft",
): Promise<Alluxio | undefined> {
  const missing = await prepareLibrary(note);
  if (missing !== undefined) {
    note(`alluxio-${journalKind} skipped: ${missing}`);
    return undefined;
  }
  const home = join(directory, `alluxio-${journalKind}`);
  await mkdir(join(home, "store"), { recursive: true });
  const ports = await freePorts(9);
  const portsOf = (i: number): number[] => ports.slice(i * 3, i * 3 + 3);
  const addresses = (k: number): string => [0, 1, 2].map((i) => `127.0.0.1:${portsOf(i)[k]}`).join(",");
  const zookeeper = journalKind === "zookeeper" ? await startOwnZooKeeper(home) : undefined;
  const client =
    zookeeper === undefined
      ? [property("master.rpc.addresses", addresses(0))]
      : [property("zookeeper.enabled", "true"), property("zookeeper.address", `127.0.0.1:${zookeeper.port}`)];
  const masters: Master[] = [];
  for (const i of [0, 1, 2]) {
    const [rpc, web, journal] = portsOf(i);
    const place = join(home, `m${i}`);
    await mkdir(place, { recursive: true });
    const options = [
      ...client,
      ...["master.hostname", "master.bind.host", "master.web.hostname", "master.web.bind.host"].map((name) =>
        property(name, "127.0.0.1"),
      ),
      property("master.rpc.port", rpc),
      property("master.web.port", web),
      ...(zookeeper === undefined
        ? [
            property("master.embedded.journal.port", journal),
            property("master.embedded.journal.addresses", addresses(2)),
            property("master.journal.type", "EMBEDDED"),
            property("master.journal.folder", join(place, "journal")),
          ]
        : [property("master.journal.type", "UFS"), property("master.journal.folder", join(home, "journal"))]),
      property("master.metastore.dir", join(place, "metastore")),
      property("master.metastore", "HEAP"),
      property("master.mount.table.root.ufs", join(home, "store")),
      property("master.update.check.enabled", "false"),
      property("home", place),
      property("work.dir", place),
      property("logs.dir", join(place, "logs")),
      property("conf.dir", join(place, "conf")),
    ];
    masters.push({ options, rpc: rpc as number, process: undefined });
  }
  // The one in a shared directory is formatted once.
  for (const [i, master] of masters.entries()) {
    if (zookeeper !== undefined && i > 0) break;
    const format = java(`format ${i}`, ["-Xmx512m", ...master.options], "alluxio.cli.Format", ["master"]);
    const [code] = (await once(format.child, "exit")) as [number];
    if (code !== 0) throw new Error(`Alluxio's format ended with ${code}: ${format.log}`);
  }
  const alluxio = new Alluxio(masters, client, zookeeper?.process);
  try {
    await alluxio.start();
  } catch (error) {
    await alluxio.close();
    throw error;
  }
  return alluxio;
}

type Master = {
  readonly options: readonly string[];
  readonly rpc: number;
  process: ServerProcess | undefined;
};

export class Alluxio implements Peer {
  readonly system: "alluxio-raft" | "alluxio-zookeeper";
  readonly conditions: string;
  readonly #zookeeper: ServerProcess | undefined;
  readonly #masters: readonly Master[];
  readonly #driver: Driver;

  constructor(masters: readonly Master[], clientOptions: readonly string[], zookeeper: ServerProcess | undefined) {
    this.system = zookeeper === undefined ? "alluxio-raft" : "alluxio-zookeeper";
    const journal =
      zookeeper === undefined
        ? "the embedded journal"
        : "the journal in a directory, which it never fsyncs, and one ZooKeeper server";
    this.conditions = `Alluxio ${release}, 3 masters with ${journal} on loopback, -Xmx2g, defaults, mkdir by its Java client`;
    this.#zookeeper = zookeeper;
    this.#masters = masters;
    this.#driver = new Driver(clientOptions);
  }

  /** Resolves when a master serves. */
  async start(): Promise<void> {
    for (const master of this.#masters) if (master.process === undefined) this.#spawn(master);
    await this.#leader();
  }

  writes(outstanding: number, seconds: number): Promise<LoadResult> {
    return this.#load("mkdir", outstanding, seconds);
  }

  reads(outstanding: number, seconds: number): Promise<LoadResult> {
    return this.#load("stat", outstanding, seconds);
  }

  async failover(): Promise<FailoverResult> {
    const leader = await this.#leader();
    let failed = 0;
    let struckMs = Number.POSITIVE_INFINITY;
    const acknowledged = Promise.withResolvers<number>();
    const timer = setTimeout(
      () => acknowledged.reject(new Error(`no write was acknowledged within ${failoverTimeoutMs} ms`)),
      failoverTimeoutMs,
    );
    this.#driver.onEvent = (kind, beganMs, endedMs) => {
      if (kind === "err") failed += beganMs > struckMs ? 1 : 0;
      // One that began before may have been acknowledged before, and only be told now.
      else if (beganMs > struckMs || endedMs > struckMs + 1000) acknowledged.resolve(endedMs - struckMs);
    };
    try {
      await this.#driver.ask(`start ${failoverThreads}`);
      await new Promise((done) => setTimeout(done, 2000));
      struckMs = Date.now();
      leader.process?.child.kill("SIGKILL");
      return { ms: await acknowledged.promise, failed };
    } finally {
      clearTimeout(timer);
      await this.#driver.ask("stop");
      await leader.process?.stop("SIGKILL");
      this.#spawn(leader);
      // It has to be back in the quorum before the next one may die.
      await new Promise((done) => setTimeout(done, 15_000));
    }
  }

  async close(): Promise<void> {
    await this.#driver.close();
    const processes = this.#processes();
    await Promise.all(processes.map((process) => process.stop("SIGKILL")));
  }

  async #load(operation: string, outstanding: number, seconds: number): Promise<LoadResult> {
    const servers = (): number => this.#processes().reduce((sum, process) => sum + cpuSeconds(process), 0);
    const began = servers();
    const answer = await this.#driver.ask(`load ${operation} ${outstanding} ${seconds * 1000}`);
    const [count = 0, medianUs = 0, p99Us = 0, cpuUs = 0] = answer.split(" ").map(Number);
    return {
      count,
      perSecond: count / seconds,
      medianUs,
      p99Us,
      serversCpuUs: ((servers() - began) / count) * 1e6,
      clientCpuUs: cpuUs / count,
    };
  }

  #processes(): ServerProcess[] {
    const all = [...this.#masters.map(({ process }) => process), this.#zookeeper];
    return all.flatMap((process) => (process === undefined ? [] : [process]));
  }

  async #leader(): Promise<Master> {
    const deadline = performance.now() + readyTimeoutMs;
    while (performance.now() < deadline) {
      const address = await this.#driver.ask("leader");
      const leader = this.#masters.find((master) => address.endsWith(`:${master.rpc}`));
      if (leader !== undefined) return leader;
      const dead = this.#masters.find(({ process }) => process?.hasExited === true);
      if (dead !== undefined) throw new Error(`an Alluxio master ended: ${dead.process?.log}`);
    }
    throw new Error(`no Alluxio master serves after ${readyTimeoutMs} ms`);
  }

  #spawn(master: Master): void {
    master.process = java("alluxio master", ["-Xmx2g", ...master.options], "alluxio.master.AlluxioMaster", []);
  }
}

/** The Java client's process. */
class Driver {
  readonly #process: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #lines: Interface;
  #log = "";
  readonly #waiting: ((answer: string) => void)[] = [];
  onEvent: (kind: "ack" | "err", beganMs: number, endedMs: number) => void = () => {};

  constructor(options: readonly string[]) {
    this.#process = spawn("java", [...javaOptions, "-Xmx2g", ...options, "Driver"], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#process.stderr.on("data", (chunk: Buffer) => {
      this.#log = (this.#log + chunk.toString()).slice(-2000);
    });
    this.#lines = createInterface({ input: this.#process.stdout });
    this.#lines.on("line", (line) => {
      const [kind, began, ended] = line.split(" ");
      if (kind === "ack" || kind === "err") this.onEvent(kind, Number(began), Number(ended));
      else this.#waiting.shift()?.(line);
    });
    this.#process.once("exit", () => {
      for (const answer of this.#waiting.splice(0)) answer("none");
    });
  }

  async ask(command: string): Promise<string> {
    if (this.#process.exitCode !== null) throw new Error(`Alluxio's driver ended: ${this.#log}`);
    return new Promise((done) => {
      this.#waiting.push(done);
      this.#process.stdin.write(`${command}\n`);
    });
  }

  async close(): Promise<void> {
    this.#lines.close();
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await exited;
  }
}

function property(name: string, value: string | number | undefined): string {
  return `-Dalluxio.${name}=${value}`;
}

function java(name: string, options: readonly string[], main: string, args: readonly string[]): ServerProcess {
  const process = new ServerProcess(name, "java", [...javaOptions, ...options, main, ...args]);
  process.stdout.resume();
  return process;
}

/** The server that Alluxio itself depends on, alone, as its documentation starts it. */
async function startOwnZooKeeper(home: string): Promise<{ readonly port: number; readonly process: ServerProcess }> {
  const [port] = await freePorts(1);
  const data = join(home, "zookeeper");
  await mkdir(data, { recursive: true });
  const lines = ["tickTime=2000", `dataDir=${data}`, `clientPort=${port}`, "clientPortAddress=127.0.0.1"];
  await writeFile(join(data, "zoo.cfg"), `${[...lines, "maxClientCnxns=0", "admin.enableServer=false"].join("\n")}\n`);
  const main = "org.apache.zookeeper.server.ZooKeeperServerMain";
  return { port: port as number, process: java("zookeeper of alluxio", ["-Xmx512m"], main, [join(data, "zoo.cfg")]) };
}

/** Fetches the jars and compiles the driver unless that was done before. Why it cannot be done, if so. */
async function prepareLibrary(note: (text: string) => void): Promise<string | undefined> {
  if (await exists(join(library, "classes", "Driver.class"))) return undefined;
  const jars = join(library, "jars");
  if (!(await exists(jars))) {
    note("fetching Alluxio's jars from Maven Central, once");
    const incoming = join(library, "incoming");
    await rm(incoming, { recursive: true, force: true });
    const failure = await runs("mvn", [
      ...["-q", "-B", "-f", join(sources, "pom.xml"), "dependency:copy-dependencies"],
      ...[`-DoutputDirectory=${incoming}`, "-DincludeScope=runtime"],
    ]);
    if (failure !== undefined) return failure;
    // Two bindings of the logging interface arrive; Alluxio is configured by way of the other one.
    for (const name of await readdir(incoming)) {
      if (/^slf4j-(reload4j|log4j12)-/.test(name)) await rm(join(incoming, name));
    }
    await rename(incoming, jars);
  }
  await writeFile(
    join(library, "log4j2.xml"),
    '<Configuration status="ERROR"><Appenders><Console name="C" target="SYSTEM_ERR"/></Appenders><Loggers><Root level="error"><AppenderRef ref="C"/></Root></Loggers></Configuration>\n',
  );
  return runs("javac", [
    ...["-nowarn", "-proc:none", "-cp", `${jars}/*`, "-d", join(library, "classes"), join(sources, "Driver.java")],
  ]);
}

async function runs(command: string, args: readonly string[]): Promise<string | undefined> {
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"] });
  let log = "";
  child.stderr.on("data", (chunk: Buffer) => {
    log = (log + chunk.toString()).slice(-500);
  });
  return new Promise((done) => {
    child.once("error", (error) => done(`cannot run ${command}: ${error.message}`));
    child.once("close", (code) => done(code === 0 ? undefined : `${command} ended with ${code}: ${log}`));
  });
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
