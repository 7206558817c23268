/**
 * ZooKeeper (Debian's package) as a peer: three servers on loopback, fsync on, its usual timings, creates of nodes below 1,000
 * parents, one pipelined session a server. Reads are of the asked server's own state, as ZooKeeper's are.
 */

import { access, mkdir, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { ServerProcess } from "../../src/cli/role-process.ts";
import {
  type FailoverResult,
  type LoadResult,
  measureFailover,
  measureLoad,
  type Peer,
  usualFailoverLoad,
} from "./peer.ts";
import { freePort } from "./processes.ts";
import { ZooKeeperSession } from "./zookeeper-session.ts";

const jar = "/usr/share/java/zookeeper.jar";
const valueBytes = 200;
const directories = 1000;
const readyTimeoutMs = 30_000;

type Server = {
  readonly config: string;
  readonly port: number;
  process: ServerProcess;
  session: ZooKeeperSession | undefined;
};

/** Undefined where there is no ZooKeeper. */
export async function startZooKeeper(directory: string): Promise<ZooKeeper | undefined> {
  const installed = await access(jar).then(
    () => true,
    () => false,
  );
  if (!installed) return undefined;
  const home = join(directory, "zookeeper");
  const ports: (readonly [number, number, number])[] = [];
  for (let i = 0; i < 3; i++) ports.push([await freePort(), await freePort(), await freePort()]);
  const members = ports.map(([, quorum, election], i) => `server.${i + 1}=127.0.0.1:${quorum}:${election}`);
  const servers: Server[] = [];
  for (const [i, [port]] of ports.entries()) {
    const data = join(home, `s${i}`);
    await mkdir(data, { recursive: true });
    await writeFile(join(data, "myid"), String(i + 1));
    const config = join(data, "zoo.cfg");
    const lines = [
      ...["tickTime=2000", "initLimit=10", "syncLimit=5", `dataDir=${data}`, `clientPort=${port}`],
      ...["clientPortAddress=127.0.0.1", "maxClientCnxns=0", "admin.enableServer=false"],
      ...["4lw.commands.whitelist=srvr", ...members],
    ];
    await writeFile(config, `${lines.join("\n")}\n`);
    servers.push({ config, port, process: spawnServer(i, config), session: undefined });
  }
  const zookeeper = new ZooKeeper(servers);
  await zookeeper.ready();
  return zookeeper;
}

function spawnServer(i: number, config: string): ServerProcess {
  const server = new ServerProcess(`zookeeper ${i}`, "java", [
    ...["-Xmx1g", "-cp", jar, "org.apache.zookeeper.server.quorum.QuorumPeerMain", config],
  ]);
  server.stdout.resume();
  return server;
}

export class ZooKeeper implements Peer {
  readonly system = "zookeeper";
  readonly conditions =
    `ZooKeeper 3.8 of Debian, 3 servers on loopback, forceSync on, tickTime 2000, creates of ${valueBytes} B nodes`;
  readonly #servers: readonly Server[];
  readonly #value = Buffer.alloc(valueBytes, 7);
  #counter = 0;
  #turn = 0;

  constructor(servers: readonly Server[]) {
    this.#servers = servers;
  }

  /** Resolves when every server has a session that takes writes, and the parents are there. */
  async ready(): Promise<void> {
    const deadline = performance.now() + readyTimeoutMs;
    for (const server of this.#servers) {
      while (server.session === undefined || server.session.ended) {
        if (performance.now() > deadline) throw new Error(`${server.process.name} is not ready: ${server.process.log}`);
        await this.#reconnect(server);
      }
    }
    const session = this.#session();
    for (let i = 0; i < directories; i += 100) {
      const parents = Array.from({ length: 100 }, (_, k) => `/d${i + k}`);
      await Promise.all(parents.map((path) => session.create(path, Buffer.alloc(0))));
    }
    await session.create("/f", Buffer.alloc(0));
  }

  writes(outstanding: number, seconds: number): Promise<LoadResult> {
    const task = (): Promise<void> => this.#session().create(this.#path(this.#counter++), this.#value);
    return measureLoad({ outstanding, seconds, task, servers: this.#processes() });
  }

  reads(outstanding: number, seconds: number): Promise<LoadResult> {
    const task = (): Promise<void> => this.#session().get(this.#path(Math.floor(Math.random() * this.#counter)));
    return measureLoad({ outstanding, seconds, task, servers: this.#processes() });
  }

  async failover(): Promise<FailoverResult> {
    const leader = await this.#findLeader();
    const others = this.#servers.filter((server) => server !== leader);
    const write = async (): Promise<void> => {
      const server = others[this.#turn++ % others.length] as Server;
      const number = this.#turn;
      if (server.session === undefined || server.session.ended) throw new Error("no session");
      await server.session.create(`/f/${number}`, this.#value);
    };
    let watching = true;
    // A server that looks for a leader ends its connections: each is opened again as soon as it lets us in.
    const watches = others.map(async (server) => {
      while (watching) await (server.session?.ended === false ? pause(10) : this.#reconnect(server));
    });
    try {
      return await measureFailover({ write, ...usualFailoverLoad }, () => leader.process.child.kill("SIGKILL"));
    } finally {
      watching = false;
      await Promise.all(watches);
      await leader.process.stop("SIGKILL");
      leader.process = spawnServer(this.#servers.indexOf(leader), leader.config);
      await this.ready();
    }
  }

  async close(): Promise<void> {
    for (const server of this.#servers) server.session?.close();
    await Promise.all(this.#servers.map((server) => server.process.stop("SIGKILL")));
  }

  /** All three in turn: measured, that is a little faster than the leader alone. */
  #session(): ZooKeeperSession {
    const server = this.#servers[this.#turn++ % this.#servers.length] as Server;
    if (server.session === undefined) throw new Error(`${server.process.name} has no session`);
    return server.session;
  }

  #path(i: number): string {
    return `/d${i % directories}/file-${i}`;
  }

  #processes(): ServerProcess[] {
    return this.#servers.map((server) => server.process);
  }

  async #reconnect(server: Server): Promise<void> {
    const opening = ZooKeeperSession.open(server.port);
    const opened = await Promise.race([opening.catch(() => undefined), pause(1000)]);
    if (opened instanceof ZooKeeperSession) {
      server.session = opened;
      return;
    }
    // One that opens later than it was waited for is not used.
    opening.then(
      (late) => late.close(),
      () => {},
    );
    await pause(10);
  }

  async #findLeader(): Promise<Server> {
    const deadline = performance.now() + readyTimeoutMs;
    while (performance.now() < deadline) {
      for (const server of this.#servers) if ((await ask(server.port, "srvr")).includes("Mode: leader")) return server;
      await pause(50);
    }
    throw new Error(`no ZooKeeper server leads after ${readyTimeoutMs} ms`);
  }
}

/** One of the four-letter commands. */
export function ask(port: number, command: string): Promise<string> {
  return new Promise((done) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(command));
    let answer = "";
    socket.on("data", (chunk: Buffer) => {
      answer += chunk.toString();
    });
    socket.on("error", () => {});
    socket.once("close", () => done(answer));
  });
}

function pause(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}
