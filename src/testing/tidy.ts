/**
 * The rules of the house that no linter knows: who may import whom, no cycles, no long files, no barrels, a header on
 * every file. `tidy.test.ts` applies them to the sources, and to sources with planted violations.
 */

import { findCycles, findImports, onlyCode } from "./import-graph.ts";

export type SourceFile = {
  /** Relative to the repository: `src/io/disk.ts`. */
  readonly path: string;
  readonly text: string;
};

export type Violation = { readonly path: string; readonly line: number; readonly what: string };

/** The table of ARCHITECTURE.md: each folder may import itself and these. */
const borders: Readonly<Record<string, readonly string[]>> = {
  base: [],
  io: ["base"],
  raft: ["base"],
  namespace: ["base"],
  rpc: ["base", "io"],
  "under-store": ["base", "io"],
  zookeeper: ["base", "io"],
  journal: ["base", "io", "rpc", "raft", "zookeeper", "under-store"],
  master: ["base", "io", "rpc", "journal", "namespace", "under-store"],
  worker: ["base", "io", "rpc", "under-store"],
  client: ["base", "io", "rpc"],
  gateway: ["base", "io", "client"],
  fuse: ["base", "io", "client"],
  cli: [
    ...["base", "io", "raft", "namespace", "rpc", "under-store", "zookeeper"],
    ...["journal", "master", "worker", "client", "gateway", "fuse"],
  ],
};

/** One file that may cross a border, because that is what it is for. */
const exceptions: Readonly<Record<string, readonly string[]>> = {
  "src/under-store/headpond.ts": ["client"],
};

const foldersWithNode = ["io", "fuse", "cli", "testing"];
/** Packages that one file alone may import, so that they can be replaced. */
const packageHomes: Readonly<Record<string, RegExp>> = {
  lmdb: /^src\/namespace\/[a-z-]+\.ts$/,
  pino: /^src\/io\//,
  "prom-client": /^src\/io\//,
  "hash-wasm": /^src\/io\//,
  commander: /^src\/cli\//,
};

/** Spelt so that this file does not find itself. */
const postponed = new RegExp(`\\b(TO${"DO"}|FIX${"ME"}|XX${"X"})\\b`);

const linesMax = 500;
const testLinesMax = 700;

export function tidy(files: readonly SourceFile[]): Violation[] {
  const known = new Set(files.map(({ path }) => path));
  const graph = new Map<string, string[]>();
  const violations: Violation[] = [];
  for (const file of files) {
    violations.push(...checkFile(file));
    const targets: string[] = [];
    for (const { specifier, line } of findImports(file.text)) {
      const target = specifier.startsWith(".") ? join(file.path, specifier) : undefined;
      if (target !== undefined && known.has(target)) targets.push(target);
      for (const what of checkImport(file.path, specifier, target, known)) {
        violations.push({ path: file.path, line, what });
      }
    }
    graph.set(file.path, targets);
  }
  for (const cycle of findCycles(graph)) {
    violations.push({
      path: cycle[0] ?? "",
      line: 1,
      what: `imports in a circle: ${[...cycle, cycle[0]].join(" → ")}`,
    });
  }
  return violations;
}

function checkFile({ path, text }: SourceFile): Violation[] {
  const violations: Violation[] = [];
  const lines = text.split("\n");
  const add = (line: number, what: string): void => void violations.push({ path, line, what });
  const max = isTest(path) ? testLinesMax : linesMax;
  if (lines.length - 1 > max) add(max, `has ${lines.length - 1} lines, more than ${max}`);
  // A test says what it is by the names of its claims.
  if (!isTest(path) && !text.replace(/^#![^\n]*\n/, "").startsWith("/**"))
    add(1, "does not begin with a comment that says what it is");
  if (/(^|\/)(index|utils?|helpers?|misc)\.ts$/.test(path)) add(1, "is named for no idea of its own");
  const code = onlyCode(text);
  if (isBarrel(code)) add(1, "is a barrel: it only passes on what others export");
  for (const [i, line] of code.split("\n").entries()) {
    const mayPrint =
      folderOf(path) === "cli" || folderOf(path) === "testing" || isTest(path) || !path.startsWith("src/");
    if (!mayPrint && /\bconsole\.\w+\(/.test(line)) add(i + 1, "prints to the console: use the logger");
  }
  for (const [i, line] of lines.entries()) {
    if (postponed.test(line)) add(i + 1, "puts work off in a comment: do it, or write it down elsewhere");
    if (/["'`(\s](\/(home|root|work|Users)\/\w)/.test(line)) add(i + 1, "names a path of one machine");
  }
  return violations;
}

function checkImport(
  path: string,
  specifier: string,
  target: string | undefined,
  known: ReadonlySet<string>,
): string[] {
  const folder = folderOf(path);
  if (target === undefined) {
    const bare = specifier.startsWith("@") ? specifier.split("/").slice(0, 2).join("/") : specifier.split("/")[0];
    const home = packageHomes[bare ?? ""];
    if (specifier.startsWith("node:")) {
      if (path.startsWith("src/") && !foldersWithNode.includes(folder ?? "") && !isTest(path)) {
        return [`imports ${specifier}: only ${foldersWithNode.join(", ")} and tests touch the machine`];
      }
    } else if (home !== undefined && path.startsWith("src/") && !isTest(path) && !home.test(path)) {
      return [`imports ${bare}: that is behind a door of its own`];
    }
    return [];
  }
  if (!known.has(target)) return [`imports ${specifier}, which does not exist`];
  const targetFolder = folderOf(target);
  if (isTest(target)) return [`imports the test ${specifier}`];
  // Tests at the top of src, benches and examples may enter everywhere.
  if (folder === undefined || folder === targetFolder || folder === "testing") return [];
  // Tests may use what helps to test, and the real doors.
  if (isTest(path) && (targetFolder === "testing" || targetFolder === "io")) return [];
  if (targetFolder === undefined) return [`imports ${specifier}, which is in no folder`];
  const allowed = [...(borders[folder] ?? []), ...(exceptions[path] ?? [])];
  if (borders[folder] === undefined) return [`is in the folder ${folder}, which is not in the table of borders`];
  return allowed.includes(targetFolder) ? [] : [`imports ${specifier}: ${folder} may not import ${targetFolder}`];
}

/** `src/io/disk.ts` → `io`; files beside the folders, benches and examples are in none. */
function folderOf(path: string): string | undefined {
  return /^src\/([^/]+)\//.exec(path)?.[1];
}

function isTest(path: string): boolean {
  return path.endsWith(".test.ts");
}

function isBarrel(code: string): boolean {
  const statements = code.split(/;\s*\n/).map((statement) => statement.trim());
  const written = statements.filter((statement) => statement !== "");
  return written.length > 0 && written.every((statement) => /^export\b[^]*\bfrom\b/.test(statement));
}

/** The path that a relative specifier in `from` means. */
function join(from: string, specifier: string): string {
  const parts = from.split("/").slice(0, -1);
  for (const part of specifier.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== ".") parts.push(part);
  }
  return parts.join("/");
}
