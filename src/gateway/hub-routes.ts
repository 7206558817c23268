/**
 * What a request to the Hub mirror asks for. Paths are the Hub's own; `org/name` may also be a bare `name`. Nothing is
 * looked up here.
 */

import { decodeParts } from "./request-path.ts";

export type RepositoryKind = "model" | "dataset" | "space";

export type Repository = {
  readonly kind: RepositoryKind;
  /** `org/name`, or a bare `name`. */
  readonly name: string;
};

export type HubRoute =
  | { readonly kind: "agent-harnesses" }
  | { readonly kind: "whoami" }
  | { readonly kind: "repositories"; readonly of: RepositoryKind }
  | { readonly kind: "info"; readonly repository: Repository; readonly revision: string }
  | { readonly kind: "tree"; readonly repository: Repository; readonly revision: string; readonly path: string }
  | { readonly kind: "paths-info"; readonly repository: Repository; readonly revision: string }
  | { readonly kind: "refs"; readonly repository: Repository }
  | { readonly kind: "resolve"; readonly repository: Repository; readonly revision: string; readonly path: string }
  | { readonly kind: "unknown" };

const kinds: Readonly<Record<string, RepositoryKind>> = { models: "model", datasets: "dataset", spaces: "space" };
const apiVerbs = new Set(["revision", "tree", "paths-info", "refs"]);
const fileVerbs = new Set(["resolve", "raw"]);
const unknown: HubRoute = { kind: "unknown" };

/** `path` as it came, undecoded. Throws `invalid` on bad escapes. */
export function parseHubRoute(path: string): HubRoute {
  const parts = decodeParts(path);
  return parts[0] === "api" ? parseApi(parts.slice(1)) : parseFile(parts);
}

function parseApi(parts: readonly string[]): HubRoute {
  const [first = "", ...rest] = parts;
  if (first === "agent-harnesses") return { kind: "agent-harnesses" };
  if (first === "whoami-v2" || first === "whoami") return { kind: "whoami" };
  const kind = Object.hasOwn(kinds, first) ? kinds[first] : undefined;
  if (kind === undefined) return unknown;
  if (rest.length === 0) return { kind: "repositories", of: kind };
  const split = splitName(rest, apiVerbs);
  const repository: Repository = { kind, name: split.name };
  if (split.verb === undefined) {
    return split.rest.length > 0 ? unknown : { kind: "info", repository, revision: "main" };
  }
  const { revision, rest: path } = takeRevision(split.rest);
  switch (split.verb) {
    case "revision":
      return revision === undefined || path.length > 0 ? unknown : { kind: "info", repository, revision };
    case "tree":
      return revision === undefined ? unknown : { kind: "tree", repository, revision, path: path.join("/") };
    case "paths-info":
      return revision === undefined || path.length > 0 ? unknown : { kind: "paths-info", repository, revision };
    case "refs":
      return revision === undefined ? { kind: "refs", repository } : unknown;
    default:
      return unknown;
  }
}

function parseFile(parts: readonly string[]): HubRoute {
  const [first = ""] = parts;
  const prefixed = Object.hasOwn(kinds, first) && !fileVerbs.has(parts[1] ?? "");
  const kind = (prefixed ? kinds[first] : undefined) ?? "model";
  const { name, verb, rest } = splitName(prefixed ? parts.slice(1) : parts, fileVerbs);
  if (verb === undefined) return unknown;
  const { revision, rest: path } = takeRevision(rest);
  if (revision === undefined || path.length === 0) return unknown;
  return { kind: "resolve", repository: { kind, name }, revision, path: path.join("/") };
}

type NameSplit = { readonly name: string; readonly verb: string | undefined; readonly rest: readonly string[] };

/** `org/name/verb/...` before `name/verb/...`: organisations are the rule. */
function splitName(parts: readonly string[], verbs: ReadonlySet<string>): NameSplit {
  const [first = "", second, third, ...rest] = parts;
  if (second === undefined) return { name: first, verb: undefined, rest: [] };
  if (third !== undefined && verbs.has(third)) return { name: `${first}/${second}`, verb: third, rest };
  if (verbs.has(second)) return { name: first, verb: second, rest: parts.slice(2) };
  return { name: `${first}/${second}`, verb: undefined, rest: parts.slice(2) };
}

/** One part, or the three of `refs/pr/1` and `refs/convert/parquet`. */
function takeRevision(parts: readonly string[]): { revision: string | undefined; rest: readonly string[] } {
  const length = parts[0] === "refs" && (parts[1] === "pr" || parts[1] === "convert") && parts.length >= 3 ? 3 : 1;
  if (parts.length === 0) return { revision: undefined, rest: [] };
  return { revision: parts.slice(0, length).join("/"), rest: parts.slice(length) };
}
