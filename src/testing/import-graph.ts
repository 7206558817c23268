/** Which file imports which, read from the sources: type imports, re-exports and dynamic imports included. */

export type Import = {
  /** As written: `./x.ts`, `node:fs`, `pino`. */
  readonly specifier: string;
  readonly line: number;
};

/** `import ... from "x"`, `export ... from "x"`, `import "x"`, `import("x")`, whatever lies between the words. */
const importPattern =
  /(?:^|[;}\n])\s*(?:import|export)\s+(?:type\s+)?[^"';]*?\bfrom\s*["']([^"']+)["']|(?:^|[;}\n])\s*import\s*["']([^"']+)["']|\bimport\s*\(\s*["']([^"']+)["']/g;

export function findImports(source: string): Import[] {
  const code = onlyCode(source);
  const imports: Import[] = [];
  for (const match of code.matchAll(importPattern)) {
    const specifier = match[1] ?? match[2] ?? match[3] ?? "";
    const line = code.slice(0, (match.index ?? 0) + match[0].length).split("\n").length;
    imports.push({ specifier, line });
  }
  return imports;
}

/** What can hide quotes, slashes and words that look like code: strings, templates, comments and regular expressions. */
const tokens = new RegExp(
  [
    /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/,
    /`(?:[^`\\]|\\[^])*`/,
    /\/\*[^]*?\*\/|\/\/[^\n]*/,
    /(?<=[(,=:[!&|?{};]\s*)\/(?![*/])(?:[^/\\\n[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/,
  ]
    .map((part) => part.source)
    .join("|"),
  "g",
);

/** Comments, templates and regular expressions become spaces, so that what they mention is not taken for code; lines stay where they are. */
export function onlyCode(source: string): string {
  const isString = (text: string): boolean => text.startsWith('"') || text.startsWith("'");
  return source.replaceAll(tokens, (text) => (isString(text) ? text : text.replaceAll(/[^\n]/g, " ")));
}

/** Every cycle of the graph once, as the files on it in order, beginning with the first by name. */
export function findCycles(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const cycles: string[][] = [];
  const states = new Map<string, "open" | "done">();
  const path: string[] = [];
  const visit = (file: string): void => {
    states.set(file, "open");
    path.push(file);
    for (const next of graph.get(file) ?? []) {
      const state = states.get(next);
      if (state === undefined) visit(next);
      else if (state === "open") cycles.push(path.slice(path.indexOf(next)));
    }
    path.pop();
    states.set(file, "done");
  };
  for (const file of [...graph.keys()].sort()) if (!states.has(file)) visit(file);
  return cycles;
}
