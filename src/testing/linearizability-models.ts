/**
 * What the histories of masters are checked against: paths that are created, changed, renamed and removed, and counters that
 * tell how often they were raised. A value is written at most once in a history, so what is read says who wrote it.
 *
 * The version of an inode is a number that only the masters know, and only grows; after a change of unknown outcome the model does not
 * know it either, until somebody is told.
 */

import type { Model } from "./linearizability-model.ts";

export type PathInput =
  /** Exclusive. */
  | { readonly kind: "create"; readonly path: string; readonly value: string }
  | { readonly kind: "set"; readonly path: string; readonly value: string; readonly ifVersion?: number }
  | { readonly kind: "stat"; readonly path: string }
  | { readonly kind: "remove"; readonly path: string }
  /** Never replaces. */
  | { readonly kind: "rename"; readonly from: string; readonly to: string };

export type PathOutput =
  /** Of `create`, `set`, `rename` the version that the change made; of `stat` the current one. */
  | { readonly code: "ok"; readonly version: number; readonly value?: string }
  | { readonly code: "not-found" }
  | { readonly code: "already-exists" }
  /** With the current version. */
  | { readonly code: "version-mismatch"; readonly version: number };

type Entry = {
  readonly value: string;
  /** `undefined`: not known, but above `above`. */
  readonly version: number | undefined;
  readonly above: number;
};

export type Paths = ReadonlyMap<string, Entry>;

export const pathModel: Model<Paths, PathInput, PathOutput> = {
  initial: new Map(),
  keysOf: (input) => (input.kind === "rename" ? [input.from, input.to] : [input.path]),
  step: stepPaths,
  fingerprint: (paths) => {
    const texts: string[] = [];
    for (const [path, { value, version, above }] of paths) texts.push(`${path}=${value}@${version ?? `>${above}`}`);
    return texts.length < 2 ? (texts[0] ?? "nothing") : texts.sort().join(" ");
  },
  describe: (input, output) => `${describeInput(input)} → ${output === undefined ? "?" : describeOutput(output)}`,
};

function stepPaths(paths: Paths, input: PathInput, output: PathOutput | undefined): Paths | undefined {
  switch (input.kind) {
    case "create":
      if (paths.has(input.path)) return answers(output, "already-exists") ? paths : undefined;
      return changed(paths, input.path, input.value, 0, output);
    case "set":
      return stepSet(paths, input, output);
    case "stat":
      return stepStat(paths, input.path, output);
    case "remove":
      if (!paths.has(input.path)) return answers(output, "not-found") ? paths : undefined;
      return answers(output, "ok") ? without(paths, input.path) : undefined;
    case "rename": {
      const entry = paths.get(input.from);
      if (entry === undefined) return answers(output, "not-found") ? paths : undefined;
      if (paths.has(input.to)) return answers(output, "already-exists") ? paths : undefined;
      return changed(without(paths, input.from), input.to, entry.value, entry.version ?? entry.above, output);
    }
    default:
      return input satisfies never;
  }
}

function stepSet(
  paths: Paths,
  { path, value, ifVersion }: Extract<PathInput, { kind: "set" }>,
  output: PathOutput | undefined,
): Paths | undefined {
  const entry = paths.get(path);
  if (entry === undefined) return answers(output, "not-found") ? paths : undefined;
  if (ifVersion === undefined) return changed(paths, path, value, entry.version ?? entry.above, output);
  if (output?.code === "version-mismatch") {
    return output.version === ifVersion ? undefined : learnt(paths, path, entry, output.version);
  }
  // Nobody saw the answer: if it did nothing, that is as if it never happened, which is tried as well.
  const isMatch = entry.version === undefined ? ifVersion > entry.above : ifVersion === entry.version;
  if (!isMatch) return output === undefined ? paths : undefined;
  return changed(paths, path, value, ifVersion, output);
}

function stepStat(paths: Paths, path: string, output: PathOutput | undefined): Paths | undefined {
  const entry = paths.get(path);
  if (output === undefined) return paths;
  if (entry === undefined) return output.code === "not-found" ? paths : undefined;
  if (output.code !== "ok" || output.value !== entry.value) return undefined;
  return learnt(paths, path, entry, output.version);
}

function answers(output: PathOutput | undefined, code: PathOutput["code"]): boolean {
  return output === undefined || output.code === code;
}

/** After a change that made `value`, with the version that its answer tells. */
function changed(
  paths: Paths,
  path: string,
  value: string,
  above: number,
  output: PathOutput | undefined,
): Paths | undefined {
  if (output === undefined) return new Map(paths).set(path, { value, version: undefined, above });
  if (output.code !== "ok" || output.version <= above) return undefined;
  return new Map(paths).set(path, { value, version: output.version, above: 0 });
}

function learnt(paths: Paths, path: string, entry: Entry, version: number): Paths | undefined {
  if (entry.version !== undefined) return entry.version === version ? paths : undefined;
  if (version <= entry.above) return undefined;
  return new Map(paths).set(path, { value: entry.value, version, above: 0 });
}

function without(paths: Paths, path: string): Paths {
  const result = new Map(paths);
  result.delete(path);
  return result;
}

function describeInput(input: PathInput): string {
  if (input.kind === "rename") return `rename ${input.from} to ${input.to}`;
  if (input.kind === "create") return `create ${input.path} = ${input.value}`;
  if (input.kind !== "set") return `${input.kind} ${input.path}`;
  return `set ${input.path} = ${input.value}${input.ifVersion === undefined ? "" : ` if ${input.ifVersion}`}`;
}

function describeOutput(output: PathOutput): string {
  if (output.code === "version-mismatch") return `version-mismatch, it is ${output.version}`;
  if (output.code !== "ok") return output.code;
  return `${output.value === undefined ? "ok" : output.value}@${output.version}`;
}

/** `raise` answers with the count after it: what is applied twice leaves a gap. */
export type CountInput = { readonly kind: "raise" | "read"; readonly counter: string };

export const countModel: Model<number, CountInput, number> = {
  initial: 0,
  keysOf: ({ counter }) => [counter],
  step: (count, { kind }, output) => {
    const after = kind === "raise" ? count + 1 : count;
    return output === undefined || output === after ? after : undefined;
  },
  fingerprint: String,
  describe: ({ kind, counter }, output) => `${kind} ${counter} → ${output ?? "?"}`,
};
