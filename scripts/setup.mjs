/**
 * Installs what the project needs, if it is not there yet: `npm ci` when node_modules is absent or belongs to another
 * package-lock.json. Runs on any Node from 18; the Node that everything else runs on comes with the packages.
 *
 * Imported: `await setup()` answers the path of that Node. Run as a program: installs, and says where it is.
 */

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const modules = join(root, "node_modules");
/** Digest of the package-lock.json that node_modules was installed from. */
const stampPath = join(modules, ".headpond-lock-digest");
export const pinnedNode = join(modules, ".bin", process.platform === "win32" ? "node.cmd" : "node");

/** The path of the pinned Node. Ends the process with a clear message if the packages cannot be installed. */
export function setup() {
  const digest = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex");
  if (existsSync(pinnedNode) && (readStamp() === digest || isInstalled())) return pinnedNode;
  console.error(existsSync(modules) ? "packages changed: installing them again" : "installing packages (once)");
  // Everything goes to stderr: the output of what runs afterwards belongs to whoever asked for it.
  const npm = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    stdio: ["ignore", 2, 2],
    shell: process.platform === "win32",
    // The packages that tests and builds need are needed here, whatever the caller's environment is for.
    env: { ...process.env, NODE_ENV: "development", npm_config_omit: "" },
  });
  if (npm.error?.code === "ENOENT")
    fail("npm is not installed: it comes with Node (nodejs.org), or as the package npm");
  if (npm.status !== 0) {
    fail(
      "npm ci failed (its messages are above). Without a network it needs a filled npm cache or a mirror: npm config set registry URL",
    );
  }
  if (!existsSync(pinnedNode)) {
    fail(`${pinnedNode} is missing after npm ci: were install scripts disabled? Try: npm rebuild node`);
  }
  const version = spawnSync(pinnedNode, ["--version"], { encoding: "utf8" });
  if (version.status !== 0) {
    fail(
      `the Node that was installed does not run on this machine (${process.platform} ${process.arch}): ${version.stderr || version.error?.message}`,
    );
  }
  writeFileSync(stampPath, digest);
  return pinnedNode;
}

/** The environment for programs of the project: their Node and tools come first. */
export function projectEnvironment() {
  return { ...process.env, PATH: `${join(modules, ".bin")}:${process.env.PATH ?? ""}` };
}

/** Whether npm's own record of node_modules has every package of the lock file: somebody ran npm install. */
function isInstalled() {
  try {
    const wanted = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages;
    const present = JSON.parse(readFileSync(join(modules, ".package-lock.json"), "utf8")).packages;
    return Object.entries(wanted).every(
      ([path, entry]) => path === "" || entry.optional || present[path]?.version === entry.version,
    );
  } catch {
    return false;
  }
}

function readStamp() {
  try {
    return readFileSync(stampPath, "utf8");
  } catch {
    return undefined;
  }
}

function fail(message) {
  console.error(`setup: ${message}`);
  process.exit(1);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) console.log(setup());
