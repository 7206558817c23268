/**
 * etcd (Debian's etcd-server) as a peer: one node or three on loopback, fsync on, driven over gRPC. Its
 * time to elect is its default (heartbeat 100 ms, election 1000 ms) or tuned to what it says fits a local network.
 */

import { type ClientHttp2Session, connect } from "node:http2";
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
import { freePort, untilListening } from "./processes.ts";

export type EtcdTimings = { readonly name: string; readonly heartbeatMs: number; readonly electionMs: number };
export const defaultTimings: EtcdTimings = { name: "etcd", heartbeatMs: 100, electionMs: 1000 };
export const tunedTimings: EtcdTimings = { name: "etcd-tuned", heartbeatMs: 20, electionMs: 200 };

const valueBytes = 200;
const requestTimeoutMs = 5000;

type Node = {
  readonly args: readonly string[];
  readonly port: number;
  readonly kv: EtcdKv;
  process: ServerProcess;
};

/** Undefined where there is no etcd. */
export async function startEtcd(
  directory: string,
  nodeCount = 1,
  timings: EtcdTimings = defaultTimings,
): Promise<Etcd | undefined> {
  const names = Array.from({ length: nodeCount }, (_, i) => `n${i}`);
  const ports = await Promise.all(names.map(async () => [await freePort(), await freePort()] as const));
  const members = ports.map(([, peer], i) => `n${i}=http://127.0.0.1:${peer}`).join(",");
  const nodes = ports.map(([client, peer], i): Node => {
    const args = [
      ...["--name", `n${i}`, "--data-dir", join(directory, timings.name, `n${i}`), "--log-level", "error"],
      ...[
        "--listen-client-urls",
        `http://127.0.0.1:${client}`,
        "--advertise-client-urls",
        `http://127.0.0.1:${client}`,
      ],
      ...[
        "--listen-peer-urls",
        `http://127.0.0.1:${peer}`,
        "--initial-advertise-peer-urls",
        `http://127.0.0.1:${peer}`,
      ],
      ...["--initial-cluster", members, "--initial-cluster-token", timings.name],
      ...["--heartbeat-interval", String(timings.heartbeatMs), "--election-timeout", String(timings.electionMs)],
    ];
    return { args, port: client, kv: new EtcdKv(client), process: spawnNode(`${timings.name} ${i}`, args) };
  });
  const spawned = await Promise.all(nodes.map((node) => node.process.spawned()));
  if (spawned.includes(false)) return undefined;
  const etcd = new Etcd(timings, nodes);
  await etcd.ready();
  return etcd;
}

function spawnNode(name: string, args: readonly string[]): ServerProcess {
  const server = new ServerProcess(name, "etcd", args);
  server.stdout.resume();
  return server;
}

export class Etcd implements Peer {
  readonly system: string;
  readonly conditions: string;
  readonly #nodes: readonly Node[];
  #leader: Node;
  #counter = 0;
  #turn = 0;

  constructor(timings: EtcdTimings, nodes: readonly Node[]) {
    this.system = timings.name;
    this.conditions = `etcd, ${nodes.length} node${nodes.length > 1 ? "s" : ""} on loopback, fsync on, heartbeat ${timings.heartbeatMs} ms, election ${timings.electionMs} ms, ${valueBytes} B values over gRPC to the leader`;
    this.#nodes = nodes;
    this.#leader = nodes[0] as Node;
  }

  /** Resolves when all nodes listen, one leads, and a write was acknowledged. */
  async ready(): Promise<void> {
    for (const node of this.#nodes) await untilListening(node.port);
    this.#leader = await this.#findLeader();
    await this.put("warm", Buffer.alloc(1));
  }

  /** Resolves when the value is durable. By way of the leader. */
  put(key: string, value: Buffer): Promise<void> {
    return this.#leader.kv.put(key, value);
  }

  writes(outstanding: number, seconds: number): Promise<LoadResult> {
    const value = Buffer.alloc(valueBytes, 7);
    const task = (): Promise<void> => this.put(`d${this.#counter % 1000}/file-${this.#counter++}`, value);
    return measureLoad({ outstanding, seconds, task, servers: this.#processes() });
  }

  reads(outstanding: number, seconds: number): Promise<LoadResult> {
    const task = (): Promise<void> => {
      const i = Math.floor(Math.random() * this.#counter);
      return this.#leader.kv.range(`d${i % 1000}/file-${i}`);
    };
    return measureLoad({ outstanding, seconds, task, servers: this.#processes() });
  }

  async failover(): Promise<FailoverResult> {
    const leader = await this.#findLeader();
    const others = this.#nodes.filter((node) => node !== leader);
    const value = Buffer.alloc(valueBytes, 7);
    const write = (): Promise<void> => {
      const node = others[this.#turn++ % others.length] as Node;
      return node.kv.put(`f-${this.#turn}`, value);
    };
    const result = await measureFailover({ write, ...usualFailoverLoad }, () => leader.process.child.kill("SIGKILL"));
    await leader.process.stop("SIGKILL");
    leader.process = spawnNode(leader.process.name, leader.args);
    await this.ready();
    return result;
  }

  async close(): Promise<void> {
    for (const node of this.#nodes) node.kv.close();
    await Promise.all(this.#nodes.map((node) => node.process.stop("SIGKILL")));
  }

  #processes(): ServerProcess[] {
    return this.#nodes.map((node) => node.process);
  }

  async #findLeader(): Promise<Node> {
    const deadline = performance.now() + 20_000;
    while (performance.now() < deadline) {
      for (const node of this.#nodes) {
        const metrics = await fetch(`http://127.0.0.1:${node.port}/metrics`).then(
          (response) => response.text(),
          () => "",
        );
        if (/^etcd_server_is_leader 1$/m.test(metrics)) return node;
      }
      await new Promise((done) => setTimeout(done, 50));
    }
    throw new Error(`${this.system}: no node leads after 20 s`);
  }
}

/**
 * The two calls that are needed, over HTTP/2 and encoded by hand: what asks runs on the same cores as what answers, and the
 * usual gRPC package takes three times the CPU of etcd itself.
 */
class EtcdKv {
  readonly #port: number;
  #session: ClientHttp2Session | undefined;

  constructor(port: number) {
    this.#port = port;
  }

  /** PutRequest { bytes key = 1; bytes value = 2; }. */
  put(key: string, value: Buffer): Promise<void> {
    return this.#call("/etcdserverpb.KV/Put", [...field(0x0a, Buffer.from(key)), ...field(0x12, value)]);
  }

  /** RangeRequest { bytes key = 1; }: linearizable unless told otherwise. */
  range(key: string): Promise<void> {
    return this.#call("/etcdserverpb.KV/Range", field(0x0a, Buffer.from(key)));
  }

  close(): void {
    this.#session?.destroy();
  }

  #call(path: string, fields: readonly Buffer[]): Promise<void> {
    const message = Buffer.concat([Buffer.alloc(5), ...fields]);
    message.writeUInt32BE(message.length - 5, 1);
    return new Promise((done, fail) => {
      const stream = this.#connected().request({
        ":method": "POST",
        ":path": path,
        "content-type": "application/grpc",
        te: "trailers",
      });
      const timer = setTimeout(() => stream.close(), requestTimeoutMs);
      let status: string | undefined;
      stream.on("trailers", (trailers) => {
        status = trailers["grpc-status"] as string | undefined;
      });
      stream.on("error", () => {});
      stream.once("close", () => {
        clearTimeout(timer);
        if (status === "0") done();
        else fail(new Error(`etcd on port ${this.#port}: ${path} ended with ${status ?? "no status"}`));
      });
      stream.resume();
      stream.end(message);
    });
  }

  #connected(): ClientHttp2Session {
    const current = this.#session;
    if (current !== undefined && !current.closed && !current.destroyed) return current;
    const session = connect(`http://127.0.0.1:${this.#port}`, { settings: { enablePush: false } });
    session.on("error", () => {});
    this.#session = session;
    return session;
  }
}

/** A field of protobuf's wire format; lengths below 16,384. */
function field(tag: number, bytes: Buffer): Buffer[] {
  const length =
    bytes.length < 128 ? Buffer.of(bytes.length) : Buffer.of((bytes.length & 127) | 128, bytes.length >> 7);
  return [Buffer.of(tag), length, bytes];
}
