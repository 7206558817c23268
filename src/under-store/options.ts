/**
 * Options of a mount: text by name, checked against the table of their store. A secret is given as a reference,
 * `env:NAME` or `file:/path`, which each process resolves for itself; so that mounts can be journaled and shown. A secret
 * given as plain text works, but whoever stores or shows options must pass them through `redactOptions` first.
 */

import { nearestName } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import { parseDurationMs, parseSizeBytes } from "../base/units.ts";
import type { Disk } from "../io/disk.ts";

export type OptionKind = "text" | "secret" | "boolean" | "count" | "size" | "duration";

export type OptionTable = Readonly<Record<string, OptionKind>>;

/** A file that holds a secret is a line, not a book. */
const secretBytesMax = 64 * 1024;

export type Environment = Readonly<Record<string, string | undefined>>;

export class OptionReader {
  readonly #options: Readonly<Record<string, string>>;
  readonly #environment: Environment;
  readonly #disk: Disk;

  /** Throws `invalid` for a name that `table` does not have, with the nearest that it has. */
  constructor(
    scheme: string,
    table: OptionTable,
    options: Readonly<Record<string, string>>,
    { environment, disk }: { readonly environment: Environment; readonly disk: Disk },
  ) {
    const names = Object.keys(table);
    for (const name of Object.keys(options)) {
      if (Object.hasOwn(table, name)) continue;
      const nearest = nearestName(name, names);
      const hint = nearest === undefined ? "" : `: do you mean ${nearest}?`;
      throw new HeadpondError(
        "invalid",
        `${scheme} has no option ${JSON.stringify(name)}${hint} It has ${names.join(", ")}`,
      );
    }
    this.#options = options;
    this.#environment = environment;
    this.#disk = disk;
  }

  text(name: string): string | undefined {
    const value = this.#options[name];
    if (value === "") throw new HeadpondError("invalid", `option ${name} is empty: give it a value or leave it out`);
    return value;
  }

  oneOf<T extends string>(name: string, values: readonly T[], byDefault: T): T {
    const value = this.text(name) ?? byDefault;
    const found = values.find((known) => known === value);
    if (found === undefined)
      throw new HeadpondError("invalid", `option ${name} is ${value}: write ${values.join(" or ")}`);
    return found;
  }

  boolean(name: string, byDefault: boolean): boolean {
    return this.oneOf(name, ["true", "false"], byDefault ? "true" : "false") === "true";
  }

  count(name: string, byDefault: number, max: number): number {
    const text = this.text(name);
    const value = text === undefined ? byDefault : Number(text);
    if (Number.isInteger(value) && value >= 1 && value <= max) return value;
    throw new HeadpondError("invalid", `option ${name} is ${text}: write a whole number from 1 to ${max}`);
  }

  sizeBytes(name: string, byDefault: number, minBytes: number, maxBytes: number): number {
    const value = parseSizeBytes(this.text(name) ?? byDefault);
    if (value >= minBytes && value <= maxBytes) return value;
    throw new HeadpondError("invalid", `option ${name} is ${value} bytes, not from ${minBytes} to ${maxBytes}`);
  }

  durationMs(name: string, byDefaultMs: number): number {
    const text = this.text(name);
    return text === undefined ? byDefaultMs : parseDurationMs(text);
  }

  /** The value itself; a reference is followed. */
  async secret(name: string): Promise<string | undefined> {
    const value = this.text(name);
    if (value?.startsWith("env:")) {
      const variable = value.slice("env:".length);
      const found = this.#environment[variable];
      if (found) return found;
      throw new HeadpondError("invalid", `option ${name}: the environment of this process has no ${variable}`);
    }
    return value?.startsWith("file:") ? this.#secretFile(name, value.slice("file:".length)) : value;
  }

  async #secretFile(name: string, path: string): Promise<string> {
    try {
      const file = await this.#disk.open(path, "read");
      try {
        const buffer = new Uint8Array(secretBytesMax);
        const count = await file.read(buffer, 0);
        return new TextDecoder().decode(buffer.subarray(0, count)).trim();
      } finally {
        await file.close();
      }
    } catch (error) {
      throw new HeadpondError("invalid", `option ${name}: ${path} cannot be read on this machine`, { cause: error });
    }
  }
}

/** Options as they may be shown: plain secrets become `***`, references to secrets stay. */
export function redactOptions(
  table: OptionTable,
  options: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const isSecret = (name: string, value: string): boolean =>
    (table[name] ?? "secret") === "secret" && !/^(env|file):/.test(value);
  return Object.fromEntries(
    Object.entries(options).map(([name, value]) => [name, isSecret(name, value) ? "***" : value]),
  );
}
