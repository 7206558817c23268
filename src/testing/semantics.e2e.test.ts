/** The examples of docs/semantics.md: each command runs, in order, and ends as the page says. */

import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { withCluster } from "./cluster.ts";

const page = fileURLToPath(new URL("../../docs/semantics.md", import.meta.url));

type Example = {
  readonly command: string;
  readonly errorCode: string | undefined;
  readonly contains: readonly string[];
  readonly lacks: readonly string[];
};

test("the examples of the page on semantics end as it says", { timeout: 300_000 }, async () => {
  const examples = parseExamples(await readFile(page, "utf8"));
  assert.ok(examples.length > 40, `${examples.length} examples were found`);
  await withCluster(1, async ({ directory, run }) => {
    await mkdir(join(directory, "store", "models"), { recursive: true });
    await writeFile(join(directory, "store", "models", "weights.bin"), "weights");
    await writeFile(join(directory, "local.bin"), "local bytes");
    for (const { command, errorCode, contains, lacks } of examples) {
      const args = argumentsOf(command.replace("file://./", `file://${directory}/`));
      const { code, stdout, stderr } = await run(...args, ...(errorCode === undefined ? [] : ["--json"]));
      const output = `$ ${command}\n${stdout}${stderr}`;
      if (errorCode === undefined) assert.equal(code, 0, output);
      else {
        assert.notEqual(code, 0, output);
        assert.equal((JSON.parse(stdout) as { code: string }).code, errorCode, output);
      }
      for (const text of contains) assert.ok(stdout.includes(text), `${output}\nlacks ${text}`);
      for (const text of lacks) assert.ok(!stdout.includes(text), `${output}\ncontains ${text}`);
    }
  });
});

function parseExamples(markdown: string): Example[] {
  const examples: Example[] = [];
  for (const [, block = ""] of markdown.matchAll(/```console\n([\s\S]*?)```/g)) {
    for (const part of block.split(/^\$ headpond /m).slice(1)) {
      const [command = "", ...notes] = part.trimEnd().split("\n");
      const behind = (mark: string): string[] =>
        notes.filter((note) => note.startsWith(mark)).map((note) => note.slice(mark.length).trim());
      const [errorCode] = behind("error:");
      const contains = behind("→");
      const lacks = behind("↛");
      const known = (errorCode === undefined ? 0 : 1) + contains.length + lacks.length;
      assert.equal(notes.length, known, `the page says something about "${command}" that is not understood`);
      examples.push({ command, errorCode, contains, lacks });
    }
  }
  return examples;
}

/** Words, with double quotes around those that have spaces. */
function argumentsOf(command: string): string[] {
  return [...command.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, word]) => quoted ?? word ?? "");
}
