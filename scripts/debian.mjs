/**
 * Programs from Debian that tests and benchmarks compare with or talk to: one list, installed where we may (as root), and
 * named where we may not. Nothing of the product needs them.
 */

import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { pathToFileURL } from "node:url";

/** What each program is for; `gates` that cannot run without it. */
const programs = [
  { package: "nginx-light", program: "nginx", purpose: "the peer of the bulk read benchmark", gates: ["bench"] },
  { package: "etcd-server", program: "etcd", purpose: "the peer of the metadata benchmarks", gates: ["bench"] },
  {
    package: "zookeeper",
    program: "/usr/share/java/zookeeper.jar",
    purpose: "a peer of the benchmarks of several masters",
    gates: ["bench", "integration"],
  },
  { package: "iproute2", program: "ip", purpose: "masters in network namespaces", gates: ["e2e", "bench"] },
  { package: "nftables", program: "nft", purpose: "networks that are cut", gates: ["e2e", "bench"] },
  { package: "curl", program: "curl", purpose: "copies compared by what is served", gates: ["e2e", "bench"] },
  { package: "iperf3", program: "iperf3", purpose: "the limit of the bulk read benchmark", gates: ["bench"] },
  { package: "chromium", program: "chromium", purpose: "the status page in a browser", gates: ["browser"] },
  { package: "faketime", program: "faketime", purpose: "wall clocks that jump", gates: ["e2e"] },
  {
    package: "python3-venv",
    program: "python3",
    purpose: "the stock Hugging Face client",
    gates: ["integration", "e2e"],
  },
];

/** Programs of the gates that are not installed. */
export function missingPrograms(gates) {
  return programs.filter((entry) => entry.gates.some((gate) => gates.includes(gate)) && !isInstalled(entry));
}

/**
 * Installs what the gates need. As root it does so without asking; otherwise it prints the command. The answer: what is
 * still missing, with its purpose.
 */
export function installPrograms(gates) {
  const missing = missingPrograms(gates);
  if (missing.length === 0) return [];
  const names = missing.map((entry) => entry.package);
  const command = `apt-get install --yes --no-install-recommends ${names.join(" ")}`;
  if (process.getuid?.() !== 0 || findProgram("apt-get") === undefined) {
    console.error(`some tests need programs that are not installed. On Debian or Ubuntu: sudo ${command}`);
    return missing;
  }
  console.error(`installing ${names.join(", ")}`);
  const environment = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const quiet = { stdio: ["ignore", "ignore", "inherit"], env: environment };
  spawnSync("apt-get", ["update", "-qq"], quiet);
  // Packages that start a service on installation are told not to: tests start their own, on their own ports.
  spawnSync("apt-get", ["install", "--yes", "-qq", "--no-install-recommends", ...names], {
    ...quiet,
    env: { ...environment, RUNLEVEL: "1", SYSTEMD_OFFLINE: "1" },
  });
  return missingPrograms(gates);
}

function isInstalled({ package: name, program }) {
  if (name !== "python3-venv") return findProgram(program) !== undefined;
  // The interpreter alone cannot make an environment.
  return spawnSync("python3", ["-c", "import venv, ensurepip"], { stdio: "ignore" }).status === 0;
}

function findProgram(name) {
  if (name.startsWith("/")) return existsSync(name) ? name : undefined;
  for (const directory of [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/sbin"]) {
    try {
      accessSync(join(directory, name), constants.X_OK);
      return join(directory, name);
    } catch {
      // Not here.
    }
  }
  return undefined;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const gates = process.argv.slice(2);
  const missing = installPrograms(gates.length > 0 ? gates : ["bench", "integration", "e2e"]);
  for (const entry of missing) console.log(`missing: ${entry.package}, ${entry.purpose}`);
  process.exit(missing.length > 0 ? 1 : 0);
}
