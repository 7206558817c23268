/**
 * Clients that work on a few shared paths through real masters and write down what they did for the linearizability checker:
 * exclusive creates, changes with and without a condition, renames, removals, and reads from the leader, from any master and from
 * a given one. Each value is written once, so what is read says who wrote it.
 *
 * Also notes when changes were acknowledged, for the time without service that a fault costs. Leaves out bytes and workers.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { type ErrorCode, toHeadpondError } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import { connect, type HeadpondClient } from "../client/client.ts";
import { checkLinearizable, type Verdict } from "./linearizability.ts";
import { History } from "./linearizability-history.ts";
import { type PathInput, type PathOutput, pathModel } from "./linearizability-models.ts";

export type HistoryClientsOptions = {
  readonly masters: readonly string[];
  /** Ids of the masters, for reads of a given one. */
  readonly ids: readonly string[];
  readonly random: Random;
  readonly clients?: number;
  readonly lanesPerClient?: number;
};

/** Paths that are worked on at a time, in pairs that are renamed to each other. */
const pairs = 12;
/** Then a pair is left as it is and a new one begun: what the search has to order stays small. */
const operationsPerPair = 300;
const changeTimeoutMs = 4000;
const readTimeoutMs = 4000;
/** Of a read that only one master may answer, which may be dead: it must not keep its lane from the others. */
const pinnedReadTimeoutMs = 300;
const pauseMsMax = 12;
/** How a call may end while masters come and go, beside the answers of the model. */
const allowedCodes = new Set<ErrorCode>([
  "unavailable",
  "overloaded",
  "timeout",
  "not-leader",
  "no-space",
  "unknown-outcome",
]);

export class HistoryClients {
  readonly #history = new History<PathInput, PathOutput>();
  readonly #random: Random;
  readonly #ids: readonly string[];
  readonly #clients: readonly HeadpondClient[];
  readonly #lanes: Promise<void>[] = [];
  readonly #pairs: { name: string; left: number }[] = [];
  /** When the last version of a path was told, for changes with a condition. */
  readonly #versions = new Map<string, number>();
  #pairCount = 0;
  #valueCount = 0;
  #stopped = false;
  /** Called and acknowledged, in milliseconds of `performance.now()`, of changes. */
  readonly #acknowledged: { readonly calledMs: number; readonly atMs: number }[] = [];
  readonly counts = { returned: 0, refused: 0, unknown: 0 };
  /** What no fault excuses. */
  readonly violations: string[] = [];

  private constructor(options: HistoryClientsOptions) {
    const { masters, ids, random, clients = 4 } = options;
    this.#random = random;
    this.#ids = ids;
    this.#clients = Array.from({ length: clients }, () => connect({ masters }));
    for (let i = 0; i < pairs; i++) this.#pairs.push(this.#newPair());
  }

  static async start(options: HistoryClientsOptions): Promise<HistoryClients> {
    const started = new HistoryClients(options);
    await started.#clients[0]?.mkdir("/h");
    for (const [number, client] of started.#clients.entries()) {
      for (let lane = 0; lane < (options.lanesPerClient ?? 4); lane++) {
        started.#lanes.push(started.#work(client, `c${number}.${lane}`));
      }
    }
    return started;
  }

  get acknowledged(): number {
    return this.#acknowledged.length;
  }

  /** Resolves with the time from `sinceMs` until a change that was called after it was acknowledged; rejects when none is after `timeoutMs` from now. */
  async untilAcknowledged(sinceMs: number, timeoutMs: number): Promise<number> {
    const endMs = performance.now() + timeoutMs;
    for (let at = 0; performance.now() < endMs; ) {
      for (; at < this.#acknowledged.length; at++) {
        const { calledMs, atMs } = this.#acknowledged[at] as { calledMs: number; atMs: number };
        if (calledMs >= sinceMs) return atMs - sinceMs;
      }
      await sleep(5);
    }
    throw new Error(`no change was acknowledged within ${timeoutMs} ms`);
  }

  /** The longest time without an acknowledgement that began or ended after `sinceMs`. */
  longestGapMs(sinceMs: number): number {
    let last = sinceMs;
    let gap = 0;
    for (const { atMs } of this.#acknowledged) {
      if (atMs < sinceMs) continue;
      gap = Math.max(gap, atMs - last);
      last = atMs;
    }
    return Math.max(gap, performance.now() - last);
  }

  /** Ends when every call has been answered. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#lanes);
    await Promise.all(this.#clients.map((client) => client.close()));
  }

  check(): Verdict {
    return checkLinearizable(pathModel, this.#history.operations);
  }

  async #work(client: HeadpondClient, name: string): Promise<void> {
    while (!this.#stopped) {
      await this.#step(client, name);
      await sleep(this.#random.between(0, pauseMsMax));
    }
  }

  async #step(client: HeadpondClient, name: string): Promise<void> {
    const random = this.#random;
    const at = random.between(0, pairs - 1);
    const pair = this.#pairs[at] as { name: string; left: number };
    if (--pair.left <= 0) this.#pairs[at] = this.#newPair();
    const [one, other] = random.chance(0.5) ? ["a", "b"] : ["b", "a"];
    const path = `/h/${pair.name}${one}`;
    const dice = random.float();
    if (dice < 0.4) await this.#stat(client, name, path);
    else if (dice < 0.6) await this.#create(client, name, path);
    else if (dice < 0.8) await this.#set(client, name, path);
    else if (dice < 0.9) await this.#remove(client, name, path);
    else await this.#rename(client, name, path, `/h/${pair.name}${other}`);
  }

  async #stat(client: HeadpondClient, name: string, path: string): Promise<void> {
    const dice = this.#random.float();
    const id = this.#ids[this.#random.between(0, this.#ids.length - 1)] as string;
    const from = dice < 0.5 ? "leader" : dice < 0.8 ? "any" : { master: id };
    const timeoutMs = typeof from === "string" ? readTimeoutMs : pinnedReadTimeoutMs;
    await this.#call(name, { kind: "stat", path }, async () => {
      const { version, attributes } = await client.stat(path, { from, timeoutMs });
      this.#versions.set(path, version);
      return { code: "ok", version, value: attributes["v"] ?? "" };
    });
  }

  async #create(client: HeadpondClient, name: string, path: string): Promise<void> {
    const value = this.#newValue();
    await this.#change(name, { kind: "create", path, value }, () =>
      client.create(path, { exclusive: true, attributes: { v: value }, timeoutMs: changeTimeoutMs }),
    );
  }

  async #set(client: HeadpondClient, name: string, path: string): Promise<void> {
    const value = this.#newValue();
    const known = this.#versions.get(path);
    const ifVersion = known !== undefined && this.#random.chance(0.5) ? { ifVersion: known } : {};
    await this.#change(name, { kind: "set", path, value, ...ifVersion }, () =>
      client.setAttributes(path, { set: { v: value } }, { ...ifVersion, timeoutMs: changeTimeoutMs }),
    );
  }

  async #remove(client: HeadpondClient, name: string, path: string): Promise<void> {
    await this.#change(name, { kind: "remove", path }, async () => {
      await client.remove(path, { timeoutMs: changeTimeoutMs });
      return { version: 0 };
    });
  }

  async #rename(client: HeadpondClient, name: string, from: string, to: string): Promise<void> {
    await this.#change(name, { kind: "rename", from, to }, () =>
      client.rename(from, to, { replace: false, timeoutMs: changeTimeoutMs }),
    );
  }

  async #change(name: string, input: PathInput, run: () => Promise<{ readonly version: number }>): Promise<void> {
    const calledMs = performance.now();
    const isDone = await this.#call(name, input, async () => ({ code: "ok", version: (await run()).version }));
    if (isDone) this.#acknowledged.push({ calledMs, atMs: performance.now() });
  }

  /** Whether it was answered: also an answer such as `not-found` took the masters' agreement. */
  async #call(name: string, input: PathInput, run: () => Promise<PathOutput>): Promise<boolean> {
    const call = this.#history.call(name, input);
    try {
      call.returned(await run());
      this.counts.returned++;
      return true;
    } catch (thrown) {
      const error = toHeadpondError(thrown);
      const { code, outcome, details } = error;
      if (code === "not-found" || code === "already-exists") {
        call.returned({ code });
        this.counts.returned++;
        return true;
      }
      if (code === "version-mismatch") {
        call.returned({ code, version: Number(details?.["version"]) });
        this.counts.returned++;
        return true;
      }
      if (!allowedCodes.has(code)) this.violations.push(`${name}: ${JSON.stringify(input)}: ${code}: ${error.message}`);
      if (outcome === "unknown") {
        call.unknown();
        this.counts.unknown++;
      } else {
        call.refused();
        this.counts.refused++;
      }
      return false;
    }
  }

  #newPair(): { name: string; left: number } {
    return { name: `p${++this.#pairCount}`, left: operationsPerPair };
  }

  #newValue(): string {
    return `v${++this.#valueCount}`;
  }
}
