/**
 * A client in a simulated cluster: the product's own `ClusterClient` and `Session` in a process of its own, which changes and reads a
 * few paths and writes down what it was told. It may pause and die like any other process.
 */

import { isHeadpondError, toHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { Session } from "../client/session.ts";
import { silentLogger } from "../io/logger.ts";
import { ClusterClient } from "../rpc/cluster-client.ts";
import { masterService } from "../rpc/master-service.ts";
import type { History } from "./linearizability-history.ts";
import type { PathInput, PathOutput } from "./linearizability-models.ts";
import { rpcPort } from "./master-simulator-machine.ts";
import type { SimNetwork } from "./sim-network.ts";
import { type SimClockOptions, SimProcess, type SimWorld } from "./sim-world.ts";

const { methods } = masterService;
const attribute = "v";

export type ClientCounts = { returned: number; unknown: number; refused: number; reads: number; standbyReads: number };

export type SimulatedClientOptions = {
  readonly world: SimWorld;
  readonly network: SimNetwork;
  readonly name: string;
  readonly clock: SimClockOptions;
  /** Hosts of the masters that it is given. */
  readonly masters: readonly string[];
  readonly history: History<PathInput, PathOutput>;
  readonly paths: number;
  /** Mean wait between two operations. */
  readonly thinkMs: number;
  /** Operations that it has under way at once, at most. */
  readonly concurrency: number;
  readonly fillerBytes: number;
  /** What it gives an operation before its outcome counts as unknown. */
  readonly timeoutMs: number;
  readonly counts: ClientCounts;
  /** Never the same twice. */
  readonly nextValue: () => string;
};

export class SimulatedClient {
  readonly process: SimProcess;
  readonly #options: SimulatedClientOptions;
  readonly #random: Random;
  readonly #masters: ClusterClient;
  readonly #session: Session;
  /** Versions that it has seen, to change by. */
  readonly #versions = new Map<string, number>();
  #isStopped = false;
  /** Operations under way. */
  active = 0;

  constructor(options: SimulatedClientOptions) {
    const { world, network, name, masters } = options;
    this.#options = options;
    this.process = new SimProcess(world, name, options.clock);
    this.#random = new Random(world.random.uint32());
    const { clock } = this.process;
    this.#masters = new ClusterClient({
      network: network.at(name, this.process),
      addresses: masters.map((host) => ({ host, port: rpcPort })),
      service: masterService,
      mastersMethod: methods.masters,
      self: { software: "simulated", role: "client", name },
      clock,
      logger: silentLogger,
      random: new Random(world.random.uint32()),
      limits: { attemptTimeoutMs: 1000 },
    });
    this.#session = new Session({ masters: this.#masters, clock, logger: silentLogger, clientName: name });
    this.go();
  }

  go(): void {
    this.#isStopped = false;
    for (let i = 0; i < this.#options.concurrency; i++) this.#later();
  }

  /** Begins nothing new. */
  stop(): void {
    this.#isStopped = true;
  }

  get isAlive(): boolean {
    return this.process.isAlive;
  }

  #later(): void {
    const waitMs = -this.#options.thinkMs * Math.log(1 - this.#random.float());
    this.process.after(waitMs, () => {
      if (this.#isStopped) return;
      this.active++;
      this.#operate(this.#choose()).then(
        () => {
          this.active--;
          this.#later();
        },
        (error: unknown) => {
          this.#options.world.note(`${this.process.name} met a defect: ${String(error)}`);
          throw error;
        },
      );
    });
  }

  #choose(): PathInput {
    const random = this.#random;
    const { paths, nextValue } = this.#options;
    const number = random.between(1, paths);
    const path = `/k${number}`;
    const kind = random.pick([
      "create",
      "create",
      "set",
      "set",
      "set",
      "stat",
      "stat",
      "stat",
      "remove",
      "rename",
    ] as const);
    if (kind === "create") return { kind, path, value: nextValue() };
    if (kind === "stat" || kind === "remove") return { kind, path };
    // Within pairs: names that all hang together take the checker longer.
    if (kind === "rename") return { kind, from: path, to: `/k${((number - 1) ^ 1) + 1}` };
    const ifVersion = this.#versions.get(path);
    if (ifVersion === undefined || random.chance(0.4)) return { kind, path, value: nextValue() };
    return { kind, path, value: nextValue(), ifVersion };
  }

  async #operate(input: PathInput): Promise<void> {
    const { world, history, counts } = this.#options;
    const { name } = this.process;
    const call = history.call(name, input);
    try {
      const output = await this.#send(input);
      world.note(`${name} ${describe(input)}: ${JSON.stringify(output)}`);
      call.returned(output);
      counts.returned++;
      if (input.kind !== "rename" && input.kind !== "remove" && "version" in output)
        this.#versions.set(input.path, output.version);
    } catch (thrown) {
      const error = toHeadpondError(thrown);
      if (error.code === "internal" || error.code === "corrupt") throw thrown;
      world.note(`${name} ${describe(input)}: ${error.code} ${error.outcome}`);
      if (error.outcome === "unknown" && input.kind !== "stat") {
        call.unknown();
        counts.unknown++;
      } else {
        call.refused();
        counts.refused++;
      }
    }
  }

  async #send(input: PathInput): Promise<PathOutput> {
    const { timeoutMs } = this.#options;
    const options = { timeoutMs };
    const session = this.#session;
    try {
      switch (input.kind) {
        case "create": {
          const { path, value } = input;
          const request = { path, exclusive: true, attributes: this.#attributes(value) };
          const { version } = await session.change(methods.create, request, options);
          return { code: "ok", version };
        }
        case "set": {
          const { path, value, ifVersion } = input;
          const request = { path, set: this.#attributes(value), ...(ifVersion === undefined ? {} : { ifVersion }) };
          const { version } = await session.change(methods.setAttributes, request, options);
          return { code: "ok", version };
        }
        case "remove":
          await session.change(methods.remove, { path: input.path }, options);
          return { code: "ok", version: 0 };
        case "rename": {
          const { from, to } = input;
          const { version } = await session.change(methods.rename, { from, to, replace: false }, options);
          return { code: "ok", version };
        }
        case "stat":
          return await this.#stat(input.path, timeoutMs);
        default:
          return input satisfies never;
      }
    } catch (error) {
      if (isHeadpondError(error, "not-found", "already-exists")) return { code: error.code as "not-found" };
      if (isHeadpondError(error, "version-mismatch")) {
        return { code: "version-mismatch", version: Number(error.details?.["version"]) };
      }
      throw error;
    }
  }

  #attributes(value: string): Record<string, string> {
    return { [attribute]: value, filler: "x".repeat(this.#options.fillerBytes) };
  }

  /** From the leader, or from any master: what it answers is linearizable all the same. */
  async #stat(path: string, timeoutMs: number): Promise<PathOutput> {
    const fromAny = this.#random.chance(0.4);
    this.#options.counts[fromAny ? "standbyReads" : "reads"]++;
    const options = { timeoutMs, readOnly: true, from: fromAny ? "any" : "leader" } as const;
    const { status } = await this.#masters.call(methods.stat, { path }, options);
    return { code: "ok", version: status.version, value: status.attributes[attribute] ?? "" };
  }
}

function describe(input: PathInput): string {
  const { kind, ...rest } = input;
  return `${kind} ${Object.values(rest).join(" ")}`;
}
