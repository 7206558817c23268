/** The sources keep the rules of `testing/tidy.ts`, documents lead somewhere, and the rules catch what they are for. */

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { findCycles, findImports } from "./testing/import-graph.ts";
import { type SourceFile, tidy } from "./testing/tidy.ts";

const root = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");

function filesUnder(directory: string, suffix: string): string[] {
  if (!existsSync(join(root, directory))) return [];
  return readdirSync(join(root, directory), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(suffix))
    .map((name) => `${directory}/${name}`)
    .filter((path) => !path.includes("node_modules/"))
    .sort();
}

function read(path: string): string {
  return readFileSync(join(root, path), "utf8");
}

test("the sources keep the rules of the house", () => {
  const paths = ["src", "bench", "examples"].flatMap((directory) => filesUnder(directory, ".ts"));
  assert.ok(paths.length > 50, "the sources are found");
  const violations = tidy(paths.map((path) => ({ path, text: read(path) })));
  assert.deepEqual(
    violations.map(({ path, line, what }) => `${path}:${line} ${what}`),
    [],
  );
});

test("every link in the documents leads to a file that is there", () => {
  const broken: string[] = [];
  const top = readdirSync(root).filter((name) => name.endsWith(".md"));
  for (const path of [...top, ...filesUnder("docs", ".md")]) {
    // Code blocks show text, not links.
    const text = read(path).replaceAll(/^```[^]*?^```/gm, "");
    for (const [, target = ""] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target) || target.startsWith("#")) continue;
      const file = join(dirname(join(root, path)), target.replace(/#.*$/, ""));
      if (!existsSync(file)) broken.push(`${path}: ${target}`);
    }
  }
  assert.deepEqual(broken, []);
});

test("the lock file has every platform's packages, and names no registry", () => {
  const lock = JSON.parse(read("package-lock.json")) as {
    packages: Record<string, { optionalDependencies?: Record<string, string>; resolved?: string }>;
  };
  const missing: string[] = [];
  for (const [owner, entry] of Object.entries(lock.packages)) {
    assert.equal(entry.resolved, undefined, `${owner} is bound to one registry`);
    for (const name of Object.keys(entry.optionalDependencies ?? {})) {
      const places = [`${owner}/node_modules/${name}`, `node_modules/${name}`];
      if (!places.some((place) => lock.packages[place] !== undefined)) missing.push(name);
    }
  }
  assert.deepEqual(missing, [], "run: node scripts/complete-lock.mjs");
});

const header = "/** A file. */\n";

/** What the rules say about one file among harmless others. */
function verdict(path: string, body: string, others: readonly SourceFile[] = []): string {
  const harmless = ["src/base/a.ts", "src/io/a.ts", "src/master/a.ts", "src/worker/a.ts", "src/testing/a.ts"];
  const files = [...harmless.map((name) => ({ path: name, text: `${header}export const a = 1;\n` })), ...others];
  const found = tidy([...files.filter((file) => file.path !== path), { path, text: body }]);
  return found.map(({ what, line }) => `${line}: ${what}`).join("\n");
}

test("an import across a border is caught in every form, and only then", () => {
  for (const statement of [
    `import { a } from "../worker/a.ts";`,
    `import type { A } from "../worker/a.ts";`,
    `export { a } from "../worker/a.ts";`,
    `import "../worker/a.ts";`,
    `const a = await import("../worker/a.ts");`,
    `import {\n  a,\n  b,\n} from "../worker/a.ts";`,
  ]) {
    const text = `${header}const before = 1;\n${statement}\nexport const x = 1;\n`;
    assert.match(verdict("src/master/b.ts", text), /master may not import worker/, statement);
  }
  assert.equal(verdict("src/master/b.ts", `${header}import { a } from "../io/a.ts";\nexport const b = a;\n`), "");
  assert.equal(
    verdict("src/master/b.ts", `${header}// import { a } from "../worker/a.ts";\nexport const b = 1;\n`),
    "",
  );
  assert.match(verdict("src/io/b.ts", `${header}import { a } from "../testing/a.ts";\n`), /io may not import testing/);
  assert.equal(verdict("src/io/b.test.ts", `${header}import { a } from "../testing/a.ts";\n`), "");
  assert.match(verdict("src/io/b.ts", `${header}import { a } from "./absent.ts";\n`), /does not exist/);
  assert.match(verdict("src/new/b.ts", `${header}import { a } from "../io/a.ts";\n`), /not in the table/);
});

test("the machine and the packages behind doors are touched only where they may be", () => {
  assert.match(verdict("src/base/b.ts", `${header}import fs from "node:fs";\n`), /only io, fuse, cli/);
  assert.equal(verdict("src/io/b.ts", `${header}import fs from "node:fs";\n`), "");
  assert.equal(verdict("src/base/b.test.ts", `${header}import { test } from "node:test";\n`), "");
  assert.match(verdict("src/worker/b.ts", `${header}import pino from "pino";\n`), /door of its own/);
});

test("circles are caught, through types, too, and named", () => {
  const b = { path: "src/io/b.ts", text: `${header}import type { C } from "./c.ts";\nexport type B = C;\n` };
  const c = `${header}import { b } from "./b.ts";\nexport type C = typeof b;\n`;
  assert.match(verdict("src/io/c.ts", c, [b]), /in a circle: src\/io\/b\.ts → src\/io\/c\.ts → src\/io\/b\.ts/);
  const graph = new Map([
    ["a", ["b", "d"]],
    ["b", ["c"]],
    ["c", ["a"]],
    ["d", ["d"]],
  ]);
  assert.deepEqual(findCycles(graph), [["a", "b", "c"], ["d"]]);
});

test("long files, barrels, prints, work put off, paths of a machine and files without a header are caught", () => {
  const line = "export const x = 1;\n";
  assert.match(verdict("src/io/b.ts", header + line.repeat(500)), /501 lines, more than 500/);
  assert.equal(verdict("src/io/b.ts", header + line.repeat(499)), "");
  assert.equal(verdict("src/io/b.test.ts", header + line.repeat(699)), "");
  assert.match(verdict("src/io/b.test.ts", header + line.repeat(700)), /more than 700/);
  assert.match(verdict("src/io/b.ts", line), /does not begin with a comment/);
  assert.match(verdict("src/io/index.ts", header + line), /named for no idea/);
  const barrel = `${header}export { a } from "./a.ts";\nexport type { B } from "./a.ts";\n`;
  assert.match(verdict("src/io/b.ts", barrel), /is a barrel/);
  assert.match(verdict("src/io/b.ts", `${header}console.log(1);\n`), /2: prints to the console/);
  assert.equal(verdict("src/cli/b.ts", `${header}console.log(1);\n`), "");
  assert.match(verdict("src/io/b.ts", `${header}// ${"TO"}${"DO"}: later\n`), /2: puts work off/);
  assert.match(verdict("src/io/b.ts", `${header}const x = "/${"home"}/me/x";\n`), /path of one machine/);
});

test("imports are found with their lines, and not in strings or comments", () => {
  const source = `/** import x from "no"; */\nimport a from "one";\nconst s = \`\nimport b from "no";\n\`;\nimport(\n"two");\n`;
  const found = findImports(source).map(({ specifier, line }) => `${specifier}@${line}`);
  assert.ok(found.includes("one@2") && found.includes("two@7"));
  assert.equal(
    found.some((entry) => entry.startsWith("no") && entry !== "no@4"),
    false,
  );
});
