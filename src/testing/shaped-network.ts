/**
 * Hosts with links of a given rate, for what distribution is measured on: one network namespace a host, one bridge a region, and
 * regions that hang off the first one by a link of their own. Needs Linux and root; inside `runInNamespaces` only.
 *
 * Rates are of TCP payload: what Ethernet, IP and TCP add is added when shaping. A host's egress is shaped inside of it, so that
 * its sockets feel back pressure, and its ingress at the bridge's port, with a short queue that drops. All addresses are resolved
 * beforehand: the kernel's table of neighbours is one for all namespaces, and three dozen hosts overflow it. Congestion control is
 * cubic. Links can be made slower or lossy, or be cut. Leaves out: delay, for which not every kernel has the queue (netem).
 *
 * The program itself is on the first bridge, without limits, and so are hosts without rates.
 */

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";

export type ShapedHost = {
  /** Short: interfaces are named after it. */
  readonly name: string;
  /** From 0; the first one if absent. */
  readonly region?: number;
  /** Both directions, unless the other one is given; absent: no limit. */
  readonly bytesPerSecond?: number;
  readonly downBytesPerSecond?: number;
};

export type ShapedNetworkOptions = {
  readonly hosts: readonly ShapedHost[];
  /** Of the link that a region has to the first one; needed where there is more than one region. */
  readonly regionLinkBytesPerSecond?: number;
};

const prefixLength = 16;
const frameBytes = 1514;
/** Of a full frame, with the time stamps that TCP puts into each segment. */
const payloadBytes = 1448;
/** What a port may send at once: less, and the timer's grain is felt. */
const burstSeconds = 0.002;
const burstBytesMin = 16 * 1024;
const queueSeconds = 0.02;
const queueBytesPerSender = 12 * 1024;
/** Inside a host nothing is dropped: its sockets stop before. */
const egressQueueBytes = 8 * 1024 * 1024;

export class ShapedNetwork {
  readonly #hosts: ReadonlyMap<string, { readonly host: ShapedHost; readonly address: string; readonly mac: string }>;
  readonly #regions: number;
  readonly #senders: number;
  /** `from>to`, by name. */
  readonly #cuts = new Set<string>();
  readonly #losses = new Map<string, number>();

  private constructor({ hosts }: ShapedNetworkOptions) {
    this.#senders = hosts.length;
    this.#regions = 1 + Math.max(0, ...hosts.map(({ region = 0 }) => region));
    this.#hosts = new Map(
      hosts.map((host, index) => {
        const parts = [host.region ?? 0, index + 10];
        const mac = `02:00:00:00:${parts.map((part) => part.toString(16).padStart(2, "0")).join(":")}`;
        return [host.name, { host, address: `198.18.${parts.join(".")}`, mac }];
      }),
    );
  }

  static create(options: ShapedNetworkOptions): ShapedNetwork {
    const network = new ShapedNetwork(options);
    network.#layOut(options.regionLinkBytesPerSecond);
    return network;
  }

  address(name: string): string {
    return this.#of(name).address;
  }

  /** The program's own. */
  get ownAddress(): string {
    return "198.18.0.1";
  }

  /** What a command begins with to run on that host. */
  prefix(name: string): readonly string[] {
    this.#of(name);
    return ["ip", "netns", "exec", name];
  }

  /** The same link at another rate, from now on. */
  shape(name: string, bytesPerSecond: number, downBytesPerSecond = bytesPerSecond): void {
    const burst = burstBytes(bytesPerSecond);
    run("tc", ["-n", name, ...shapeOf("eth0", bytesPerSecond, egressQueueBytes, burst)]);
    run("tc", shapeOf(portOf(name), downBytesPerSecond, this.#queueBytes(downBytesPerSecond)));
  }

  /** A link as fast as the machine. */
  unshape(name: string): void {
    run("tc", ["-n", name, "qdisc", "del", "dev", "eth0", "root"]);
    run("tc", ["qdisc", "del", "dev", portOf(name), "root"]);
  }

  /** Bytes that a host has sent since it was made, with headers and acknowledgements. */
  sentBytes(name: string): number {
    this.#of(name);
    return counted(portOf(name), "rx");
  }

  receivedBytes(name: string): number {
    this.#of(name);
    return counted(portOf(name), "tx");
  }

  /** Bytes over the link of a region: into it and out of it. */
  regionBytes(region: number): { readonly in: number; readonly out: number } {
    return { in: counted(uplinkOf(region), "tx"), out: counted(uplinkOf(region), "rx") };
  }

  /** Those pairs do not hear each other any more. */
  cut(...pairs: readonly (readonly [string, string])[]): void {
    for (const [one, other] of pairs) this.#cuts.add(`${one}>${other}`).add(`${other}>${one}`);
    this.#applyFaults();
  }

  /** So many of the packets that a host sends or receives vanish. */
  lose(name: string, percent: number): void {
    this.#losses.set(name, percent);
    this.#applyFaults();
  }

  /** Nothing is cut or lost any more. Rates stay. */
  heal(): void {
    this.#cuts.clear();
    this.#losses.clear();
    this.#applyFaults();
  }

  #of(name: string): { readonly host: ShapedHost; readonly address: string; readonly mac: string } {
    const found = this.#hosts.get(name);
    if (found === undefined) throw new Error(`no host ${name}: there are ${[...this.#hosts.keys()].join(", ")}`);
    return found;
  }

  #layOut(regionLink: number | undefined): void {
    run("mkdir", ["-p", "/run/netns"]);
    run("mount", ["-t", "tmpfs", "tmpfs", "/run/netns"]);
    const own = "02:00:00:00:ff:01";
    const lines = ["link set lo up"];
    for (let region = 0; region < this.#regions; region++) {
      lines.push(`link add ${bridgeOf(region)} type bridge forward_delay 0`);
      if (region === 0) {
        lines.push(`link set ${bridgeOf(0)} address ${own}`, `address add ${this.ownAddress}/16 dev ${bridgeOf(0)}`);
      }
      lines.push(`link set ${bridgeOf(region)} up`);
      if (region === 0) continue;
      lines.push(`link add ${uplinkOf(region)} type veth peer name down${region}`);
      lines.push(`link set ${uplinkOf(region)} master ${bridgeOf(0)} up`);
      lines.push(`link set down${region} master ${bridgeOf(region)} up`);
    }
    for (const { host } of this.#hosts.values()) lines.push(`netns add ${host.name}`);
    for (const { host, mac } of this.#hosts.values()) {
      const { name, region = 0 } = host;
      lines.push(`link add ${portOf(name)} type veth peer name eth0 address ${mac} netns ${name}`);
      lines.push(`link set ${portOf(name)} master ${bridgeOf(region)} up`);
    }
    batch([], lines);
    batch(
      [],
      [`route replace 198.18.0.0/${prefixLength} dev ${bridgeOf(0)} congctl cubic`, ...this.#neighbours(bridgeOf(0))],
    );
    for (const { host, address } of this.#hosts.values()) {
      batch(
        ["-n", host.name],
        [
          "link set lo up",
          `address add ${address}/${prefixLength} dev eth0`,
          "link set eth0 up",
          `route replace 198.18.0.0/${prefixLength} dev eth0 congctl cubic src ${address}`,
          `neighbour replace ${this.ownAddress} lladdr ${own} nud permanent dev eth0`,
          ...this.#neighbours("eth0", host.name),
        ],
      );
      const { bytesPerSecond, downBytesPerSecond } = host;
      if (bytesPerSecond !== undefined) this.shape(host.name, bytesPerSecond, downBytesPerSecond);
    }
    for (let region = 1; region < this.#regions; region++) {
      if (regionLink === undefined) throw new Error("regions need a link of some rate between them");
      for (const device of [uplinkOf(region), `down${region}`]) {
        run("tc", shapeOf(device, regionLink, this.#queueBytes(regionLink)));
      }
    }
  }

  #neighbours(device: string, except?: string): string[] {
    return [...this.#hosts.values()]
      .filter(({ host }) => host.name !== except)
      .map(({ address, mac }) => `neighbour replace ${address} lladdr ${mac} nud permanent dev ${device}`);
  }

  #queueBytes(bytesPerSecond: number): number {
    return Math.max(bytesPerSecond * queueSeconds, this.#senders * queueBytesPerSender);
  }

  /** One transaction at the bridges: no packet sees half of the rules. */
  #applyFaults(): void {
    const pairs = [...this.#cuts].map((cut) =>
      cut
        .split(">")
        .map((name) => this.address(name))
        .join(" . "),
    );
    const rules = pairs.length === 0 ? [] : [`ip saddr . ip daddr { ${pairs.join(", ")} } drop`];
    for (const [name, percent] of this.#losses) {
      for (const side of ["saddr", "daddr"]) {
        rules.push(`ip ${side} ${this.address(name)} numgen random mod 10000 < ${Math.round(percent * 100)} drop`);
      }
    }
    const chain = ["chain at-forward {", "type filter hook forward priority 0", ...rules, "}"].join("\n");
    const table = "table bridge faults";
    run("nft", ["-f", "-"], `${table}\ndelete ${table}\n${table} {\n${chain}\n}\n`);
  }
}

function shapeOf(
  device: string,
  bytesPerSecond: number,
  queueBytes: number,
  burst = burstBytes(bytesPerSecond),
): string[] {
  const bits = Math.round((bytesPerSecond * 8 * frameBytes) / payloadBytes);
  const shape = ["rate", `${bits}bit`, "burst", String(burst), "limit", String(Math.round(queueBytes + burst))];
  return ["qdisc", "replace", "dev", device, "root", "tbf", ...shape];
}

function burstBytes(bytesPerSecond: number): number {
  return Math.round(Math.max(burstBytesMin, bytesPerSecond * burstSeconds));
}

/** The host's end at the bridge. */
function portOf(name: string): string {
  return `p-${name}`;
}

function bridgeOf(region: number): string {
  return `region${region}`;
}

/** The end of a region's link at the first bridge. */
function uplinkOf(region: number): string {
  return `up${region}`;
}

/** From the table of this network namespace: received bytes are its first column, sent ones the ninth. */
function counted(device: string, direction: "rx" | "tx"): number {
  const row = readFileSync("/proc/net/dev", "utf8")
    .split("\n")
    .find((line) => line.trim().startsWith(`${device}:`));
  if (row === undefined) throw new Error(`no device ${device}`);
  const columns = row
    .slice(row.indexOf(":") + 1)
    .trim()
    .split(/\s+/);
  return Number(columns[direction === "rx" ? 0 : 8]);
}

function batch(options: readonly string[], lines: readonly string[]): void {
  run("ip", [...options, "-batch", "-"], `${lines.join("\n")}\n`);
}

function run(program: string, args: readonly string[], input?: string): string {
  const done = spawnSync(program, args, { encoding: "utf8", ...(input === undefined ? {} : { input }) });
  if (done.status !== 0) {
    throw new Error(`${[program, ...args].join(" ")} ended with ${done.status}: ${done.stderr?.trim()}`);
  }
  return done.stdout;
}
