/** The kinds of settings (config.ts): what a value may be written as, and what it becomes. Addresses are there, too. */

import { HeadpondError } from "./errors.ts";
import { parseMasterId } from "./ids.ts";
import { type Place, parsePlace } from "./place.ts";
import { parseDurationMs, parseSizeBytes } from "./units.ts";

/** One cache directory; a capacity in bytes, or undefined: nine tenths of its file system. */
export type CacheDirectorySetting = { readonly path: string; readonly capacityBytes: number | undefined };

export type Setting<T> = {
  readonly kind: string;
  /** As written in a file. */
  readonly initial: unknown;
  readonly help: string;
  /** Throws `invalid` with what is wrong, without the key. */
  readonly parse: (raw: unknown) => T;
};

export function wrong(raw: unknown, wanted: string): HeadpondError {
  return new HeadpondError("invalid", `${JSON.stringify(raw)} is not ${wanted}`);
}

export function text(initial: string, help: string): Setting<string> {
  const parse = (raw: unknown): string => {
    if (typeof raw !== "string" || raw === "") throw wrong(raw, "a text");
    return raw;
  };
  return { kind: "text", initial, help, parse };
}

export function masterId(initial: string, help: string): Setting<string> {
  return { kind: "text", initial, help, parse: parseMasterId };
}

export function optionalText(help: string): Setting<string | undefined> {
  const parse = (raw: unknown): string | undefined => (raw === undefined || raw === null ? undefined : String(raw));
  return { kind: "text", initial: undefined, help, parse };
}

export function duration(initial: string, help: string): Setting<number> {
  return { kind: "duration", initial, help, parse: (raw) => parseDurationMs(scalar(raw)) };
}

export function size(initial: string, help: string): Setting<number> {
  return { kind: "size", initial, help, parse: (raw) => parseSizeBytes(scalar(raw)) };
}

export function optionalSize(help: string): Setting<number | undefined> {
  const parse = (raw: unknown): number | undefined =>
    raw === undefined || raw === null ? undefined : parseSizeBytes(scalar(raw));
  return { kind: "size", initial: undefined, help, parse };
}

function scalar(raw: unknown): string | number {
  if (typeof raw !== "string" && typeof raw !== "number") throw wrong(raw, "a number with a unit");
  return raw;
}

export function integer(initial: number, min: number, max: number, help: string): Setting<number> {
  const parse = (raw: unknown): number => {
    const value = typeof raw === "string" && /^[0-9]+$/.test(raw) ? Number(raw) : raw;
    if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
      throw wrong(raw, `a whole number from ${min} to ${max}`);
    }
    return value as number;
  };
  return { kind: "number", initial, help, parse };
}

export function integerOrAuto(min: number, max: number, help: string): Setting<number | "auto"> {
  const { parse } = integer(min, min, max, help);
  return { kind: "number \\| auto", initial: "auto", help, parse: (raw) => (raw === "auto" ? raw : parse(raw)) };
}

export function choice<const T extends string>(initial: NoInfer<T>, values: readonly T[], help: string): Setting<T> {
  const parse = (raw: unknown): T => {
    const value = values.find((candidate) => candidate === raw);
    if (value === undefined) throw wrong(raw, `one of ${values.join(", ")}`);
    return value;
  };
  return { kind: values.join(" \\| "), initial, help, parse };
}

export function list(initial: readonly string[], help: string): Setting<readonly string[]> {
  const parse = (raw: unknown): readonly string[] => {
    const items = typeof raw === "string" ? raw.split(",").map((item) => item.trim()) : raw;
    if (!Array.isArray(items) || items.length === 0 || items.some((item) => typeof item !== "string" || item === "")) {
      throw wrong(raw, "a list");
    }
    return items as readonly string[];
  };
  return { kind: "list", initial, help, parse };
}

/** As text `endpoint=https://h,region=eu`. */
export function texts(help: string): Setting<Readonly<Record<string, string>>> {
  const parse = (raw: unknown): Readonly<Record<string, string>> => {
    const given: unknown =
      typeof raw === "string"
        ? Object.fromEntries(
            raw.split(",").map((item) => [item.split("=")[0]?.trim(), item.slice(item.indexOf("=") + 1).trim()]),
          )
        : raw;
    if (typeof given !== "object" || given === null || Array.isArray(given)) throw wrong(raw, "{ name: value, ... }");
    return Object.fromEntries(Object.entries(given).map(([name, value]) => [name, String(value)]));
  };
  return { kind: "map of texts", initial: {}, help, parse };
}

export function place(initial: string, help: string): Setting<Place> {
  return { kind: "place", initial, help, parse: (raw) => parsePlace(String(raw)) };
}

export function directories(
  initial: readonly { readonly path: string; readonly capacity?: string }[],
  help: string,
): Setting<readonly CacheDirectorySetting[]> {
  const parse = (raw: unknown): readonly CacheDirectorySetting[] => {
    const items: unknown = typeof raw === "string" ? raw.split(",").map(parseDirectoryText) : raw;
    if (!Array.isArray(items) || items.length === 0) throw wrong(raw, "a list of { path, capacity }");
    return items.map((item: unknown) => {
      const { path, capacity, ...rest } = (typeof item === "object" && item !== null ? item : {}) as Record<
        string,
        unknown
      >;
      if (typeof path !== "string" || !path.startsWith("/")) throw wrong(item, "{ path: /absolute, capacity: 3TiB }");
      const [other] = Object.keys(rest);
      if (other !== undefined) throw new HeadpondError("invalid", `unknown key ${other}: there are path and capacity`);
      return { path, capacityBytes: capacity === undefined ? undefined : parseSizeBytes(scalar(capacity)) };
    });
  };
  return { kind: "list of { path, capacity }", initial, help, parse };
}

/** `/nvme0=3TiB` or `/nvme0`. */
function parseDirectoryText(entry: string): { path: string; capacity?: string } {
  const [path = "", capacity] = entry.trim().split("=");
  return capacity === undefined ? { path } : { path, capacity };
}
