/**
 * Completes package-lock.json with the optional packages of other platforms. npm leaves out those that the registry it
 * was run against does not carry, and `npm ci` then refuses the file everywhere. Run it after adding a package.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "./setup.mjs";

const path = join(root, "package-lock.json");
const lock = JSON.parse(readFileSync(path, "utf8"));
const systems = ["android", "darwin", "linux", "freebsd", "netbsd", "openbsd", "sunos", "aix", "openharmony", "win32"];
const processors = ["arm64", "x64", "arm", "ppc64", "riscv64", "s390x", "ia32", "loong64", "mips64el", "wasm32"];

let addedCount = 0;
for (const [owner, entry] of Object.entries(lock.packages)) {
  for (const [name, range] of Object.entries(entry.optionalDependencies ?? {})) {
    if (isLocked(owner, name)) continue;
    const words = name.split(/[-/]/).map((word) => (word === "win32" || word === "windows" ? "win32" : word));
    const os = words.filter((word) => systems.includes(word));
    const cpu = words.filter((word) => processors.includes(word)).slice(0, 1);
    if (!/^\d/.test(range) || os.length === 0 || cpu.length === 0) {
      console.error(`${owner || "package.json"}: cannot tell the platform or version of ${name}@${range}`);
      process.exitCode = 1;
      continue;
    }
    const libc = os[0] !== "linux" ? [] : words.includes("musl") ? ["musl"] : words.includes("gnu") ? ["glibc"] : [];
    lock.packages[`node_modules/${name}`] = {
      version: range,
      cpu,
      ...(entry.dev ? { dev: true } : {}),
      ...(libc.length > 0 ? { libc } : {}),
      optional: true,
      os,
    };
    addedCount++;
  }
}
const sorted = Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1));
lock.packages = Object.fromEntries(sorted);
if (addedCount > 0) writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
console.log(`${addedCount} packages of other platforms added`);

/** Whether `name`, seen from the package at `owner`, is there: in it or in one of those around it. */
function isLocked(owner, name) {
  for (let at = owner; ; at = at.slice(0, at.lastIndexOf("node_modules/")).replace(/\/$/, "")) {
    if (lock.packages[`${at === "" ? "" : `${at}/`}node_modules/${name}`] !== undefined) return true;
    if (at === "") return false;
  }
}
