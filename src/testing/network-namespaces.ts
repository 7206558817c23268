/**
 * Hosts of a test as network namespaces: each has its own address on one bridge, and the links between them can be cut one way
 * or both, made lossy, or made slow. Needs Linux and root.
 *
 * `runInNamespaces` gives a program its own network, mounts and processes; whatever it makes is gone when it ends, also when it
 * is killed, and nothing that it sends can leave. Inside, `HostNetwork` lays out the hosts; the program itself is on the bridge
 * too, as the host `self`. Leaves out: links with a fixed delay, for which not every kernel has the queue (netem).
 */

import { spawn, spawnSync } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const bridge = "hosts";
const prefixLength = 24;
const bitsPerKilobit = 1000;

/** Why no hosts can be made here; false: they can. */
export function whyNoNamespaces(): string | false {
  if (process.platform !== "linux") return "network namespaces are of Linux";
  if (process.getuid?.() !== 0) return "network namespaces need root";
  for (const [program, from] of [
    ["ip", "iproute2"],
    ["nft", "nftables"],
  ] as const) {
    if (spawnSync(program, ["-V"]).status !== 0) return `${program} is not installed (Debian: ${from})`;
  }
  const script = `ip link add ${bridge} type bridge && nft add table bridge t && mount -t tmpfs tmpfs /mnt`;
  const tried = spawnSync("unshare", ["--net", "--mount", "sh", "-c", script]);
  return tried.status === 0 ? false : `this root may not make networks: ${String(tried.stderr).trim()}`;
}

export type InsideResult = { readonly code: number | string; readonly log: string };

/**
 * Runs `node SCRIPT ARGS` in namespaces of its own. Its lines go to `onLine` as they come; what it writes to stderr is in the
 * result. When `signal` fires, it and all that it started are killed.
 */
export async function runInNamespaces(
  script: URL,
  args: readonly string[],
  options: { readonly onLine: (line: string) => void; readonly signal?: AbortSignal },
): Promise<InsideResult> {
  const { onLine, signal } = options;
  // The first process of a process namespace takes all others with it.
  const isolation = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
  const command = [...isolation, process.execPath, fileURLToPath(script), ...args];
  // Also when this process is killed, and can kill nobody itself any more.
  const dying = ["--pdeathsig", "KILL", "unshare", ...command];
  const child = spawn("setpriv", dying, { stdio: ["ignore", "pipe", "pipe"] });
  const kill = (): void => void child.kill("SIGKILL");
  signal?.addEventListener("abort", kill, { once: true });
  let log = "";
  child.stderr.on("data", (chunk: Buffer) => {
    log = (log + chunk.toString()).slice(-20_000);
  });
  createInterface({ input: child.stdout }).on("line", onLine);
  try {
    return await new Promise((done, fail) => {
      child.once("error", fail);
      child.once("close", (code, by) => done({ code: code ?? by ?? "nothing", log }));
    });
  } finally {
    signal?.removeEventListener("abort", kill);
  }
}

export class HostNetwork {
  readonly #hosts: readonly string[];
  /** `from>to`. */
  readonly #cuts = new Set<string>();
  readonly #losses = new Map<string, number>();
  readonly #slow = new Set<string>();

  private constructor(hosts: readonly string[]) {
    this.#hosts = hosts;
  }

  /** Inside `runInNamespaces` only. Names are short: they are names of interfaces, too. */
  static create(names: readonly string[]): HostNetwork {
    const network = new HostNetwork(["self", ...names]);
    run("mkdir", ["-p", "/run/netns"]);
    run("mount", ["-t", "tmpfs", "tmpfs", "/run/netns"]);
    run("ip", ["link", "set", "lo", "up"]);
    run("ip", ["link", "add", bridge, "type", "bridge", "forward_delay", "0"]);
    run("ip", ["address", "add", `${network.address("self")}/${prefixLength}`, "dev", bridge]);
    run("ip", ["link", "set", bridge, "up"]);
    for (const name of names) {
      run("ip", ["netns", "add", name]);
      run("ip", ["link", "add", portOf(name), "type", "veth", "peer", "name", "eth0", "netns", name]);
      run("ip", ["link", "set", portOf(name), "master", bridge, "up"]);
      run("ip", ["-n", name, "address", "add", `${network.address(name)}/${prefixLength}`, "dev", "eth0"]);
      for (const device of ["lo", "eth0"]) run("ip", ["-n", name, "link", "set", device, "up"]);
    }
    return network;
  }

  /** In the range that is set aside for tests of networks. */
  address(host: string): string {
    const at = this.#hosts.indexOf(host);
    if (at === -1) throw new Error(`no host ${host}: there are ${this.#hosts.join(", ")}`);
    return `198.18.0.${at + 1}`;
  }

  /** What a command begins with to run on that host. */
  prefix(host: string): readonly string[] {
    return host === "self" ? [] : ["ip", "netns", "exec", host];
  }

  /** What `from` sends to `to` vanishes from now on; the other way is left as it is. */
  cutOneWay(from: string, to: string): void {
    this.#cuts.add(`${from}>${to}`);
    this.#apply();
  }

  /** Those pairs do not hear each other any more, all from one moment on. */
  cut(...pairs: readonly (readonly [string, string])[]): void {
    for (const [one, other] of pairs) this.#cuts.add(`${one}>${other}`).add(`${other}>${one}`);
    this.#apply();
  }

  /** Those hosts hear each other and nobody of the others, and the other way round; `self` goes on hearing everybody. */
  split(side: readonly string[]): void {
    const others = this.#hosts.filter((host) => !side.includes(host) && host !== "self");
    this.cut(...side.flatMap((one) => others.map((other) => [one, other] as const)));
  }

  /** So many of the packets that a host sends or receives vanish. */
  lose(host: string, percent: number): void {
    this.#losses.set(host, percent);
    this.#apply();
  }

  /** Both directions of a host's link have that rate; what waits longer than half a second for it is lost. */
  slow(host: string, kilobitsPerSecond: number): void {
    this.#slow.add(host);
    const burstBytes = Math.max(4000, (kilobitsPerSecond * bitsPerKilobit) / 8 / 100);
    const shape = ["rate", `${kilobitsPerSecond}kbit`, "burst", String(burstBytes), "latency", "500ms"];
    run("tc", ["qdisc", "replace", "dev", portOf(host), "root", "tbf", ...shape]);
    run("tc", ["-n", host, "qdisc", "replace", "dev", "eth0", "root", "tbf", ...shape]);
  }

  /** All links as new. */
  heal(): void {
    this.#cuts.clear();
    this.#losses.clear();
    this.#apply();
    for (const host of this.#slow) {
      run("tc", ["qdisc", "del", "dev", portOf(host), "root"]);
      run("tc", ["-n", host, "qdisc", "del", "dev", "eth0", "root"]);
    }
    this.#slow.clear();
  }

  /** One transaction at the bridge: no packet sees half of the rules. */
  #apply(): void {
    const pairs = [...this.#cuts].map((cut) =>
      cut
        .split(">")
        .map((host) => this.address(host))
        .join(" . "),
    );
    const rules = pairs.length === 0 ? [] : [`ip saddr . ip daddr { ${pairs.join(", ")} } drop`];
    for (const [host, percent] of this.#losses) {
      for (const side of ["saddr", "daddr"]) {
        rules.push(`ip ${side} ${this.address(host)} numgen random mod 1000 < ${Math.round(percent * 10)} drop`);
      }
    }
    const hooks = ["forward", "input", "output"];
    const chains = hooks.map((hook) =>
      [`chain at-${hook} {`, `type filter hook ${hook} priority 0`, ...rules, "}"].join("\n"),
    );
    const table = "table bridge faults";
    run("nft", ["-f", "-"], `${table}\ndelete ${table}\n${table} {\n${chains.join("\n")}\n}\n`);
  }
}

/** The host's end at the bridge. */
function portOf(host: string): string {
  return `b-${host}`;
}

function run(program: string, args: readonly string[], input?: string): void {
  const done = spawnSync(program, args, input === undefined ? {} : { input });
  if (done.status !== 0) {
    throw new Error(`${[program, ...args].join(" ")} ended with ${done.status}: ${String(done.stderr).trim()}`);
  }
}
