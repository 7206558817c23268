/**
 * A client that is meant to be killed: works on a directory of its own, some lanes at once, and says on its standard output
 * what it begins and what was answered, line by line and synchronously, so that a kill takes no answer with it.
 *
 *   node crash-client.ts MASTERS LIFE SEED
 */

import { writeSync } from "node:fs";
import { toHeadpondError } from "../base/errors.ts";
import { Random } from "../base/random.ts";
import { connect, type HeadpondClient } from "../client/client.ts";

/** What an operation makes of some paths: a value, or nothing there any more. All of it happens, or nothing. */
export type Change = readonly (readonly [path: string, value: string | null])[];
/** `done`: acknowledged; `failed`: it never takes effect; `unknown`: it may have, or may yet. */
export type CrashLine =
  | { readonly kind: "begin"; readonly id: number; readonly change: Change }
  | { readonly kind: "done"; readonly id: number }
  | { readonly kind: "unknown"; readonly id: number }
  | { readonly kind: "failed"; readonly id: number; readonly code: string; readonly message: string };

/** The bytes that a value stands for: `w:SEED:SIZE`. */
export function contentOf(value: string): Uint8Array {
  const [, seed = "", size = ""] = value.split(":");
  return new Random(Number(seed)).bytes(Number(size));
}

const plainLanes = 6;
const writeLanes = 2;

function say(line: CrashLine): void {
  writeSync(1, `${JSON.stringify(line)}\n`);
}

class Lane {
  readonly #client: HeadpondClient;
  readonly #random: Random;
  readonly #directory: string;
  readonly #writes: boolean;
  readonly #nextId: () => number;
  /** What is surely there. A path whose fate is not known is never touched again. */
  readonly #present = new Map<string, string>();
  #count = 0;

  constructor(options: {
    client: HeadpondClient;
    random: Random;
    directory: string;
    writes: boolean;
    nextId: () => number;
  }) {
    this.#client = options.client;
    this.#random = options.random;
    this.#directory = options.directory;
    this.#writes = options.writes;
    this.#nextId = options.nextId;
  }

  async run(): Promise<never> {
    for (;;) await this.#step();
  }

  async #step(): Promise<void> {
    const random = this.#random;
    const number = this.#count++;
    const [old] = this.#present;
    const dice = random.float();
    if (old === undefined || dice < 0.5) {
      const path = `${this.#directory}/f${number}`;
      await this.#make(path, number);
    } else if (dice < 0.7) {
      const to = `${this.#directory}/r${number}`;
      await this.#attempt(
        [
          [old[0], null],
          [to, old[1]],
        ],
        () => this.#client.rename(old[0], to, { replace: false }),
      );
    } else if (dice < 0.85) {
      await this.#attempt([[old[0], null]], () => this.#client.remove(old[0]));
    } else {
      await this.#make(old[0], number);
    }
  }

  /** A new file, or a new value for the one that is there. */
  async #make(path: string, number: number): Promise<void> {
    const random = this.#random;
    const isNew = !this.#present.has(path);
    if (this.#writes) {
      const size = random.chance(0.1) ? 5_000_000 + number : random.between(1, 200_000);
      const value = `w:${random.between(1, 2 ** 31)}:${size}`;
      await this.#attempt([[path, value]], () => this.#client.write(path, contentOf(value), { exclusive: isNew }));
    } else {
      const value = `v${number}`;
      await this.#attempt([[path, value]], () =>
        isNew
          ? this.#client.create(path, { exclusive: true, recursive: true, attributes: { v: value } })
          : this.#client.setAttributes(path, { set: { v: value } }),
      );
    }
  }

  async #attempt(change: Change, run: () => Promise<unknown>): Promise<void> {
    const id = this.#nextId();
    say({ kind: "begin", id, change });
    try {
      await run();
      say({ kind: "done", id });
      for (const [path, value] of change) {
        if (value === null) this.#present.delete(path);
        else this.#present.set(path, value);
      }
    } catch (thrown) {
      const { outcome, code, message } = toHeadpondError(thrown);
      if (outcome === "none") {
        say({ kind: "failed", id, code, message });
      } else {
        say({ kind: "unknown", id });
        for (const [path] of change) this.#present.delete(path);
      }
    }
  }
}

async function main(masters: string, life: number, seed: number): Promise<void> {
  const client = connect({ masters: masters.split(","), clientName: `life ${life}` });
  let id = 0;
  const nextId = (): number => ++id;
  const lanes = Array.from({ length: plainLanes + writeLanes }, (_, number) => {
    const writes = number >= plainLanes;
    const directory = `${writes ? "/models/out" : "/work"}/life-${life}-lane-${number}`;
    return new Lane({ client, random: new Random(seed * 1000 + number), directory, writes, nextId });
  });
  await Promise.all(lanes.map((lane) => lane.run()));
}

if (import.meta.main) {
  const [masters = "", life = "", seed = ""] = process.argv.slice(2);
  await main(masters, Number(life), Number(seed));
}
