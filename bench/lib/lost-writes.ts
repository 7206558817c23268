/**
 * Counts acknowledged writes that are lost: some clients write to whoever leads, others to one master only, which was frozen or cut
 * off, and which has their writes waiting when it comes back. Afterwards every name that was acknowledged is looked up. There must be none missing; a
 * refusal, or an answer that nobody knows, is right.
 */

import { connect, type HeadpondClient } from "../../src/client/client.ts";
import { runOutstanding } from "./benchmark.ts";

export type LostWrites = {
  /** Acknowledged to clients that follow, and to those that are pinned to the master that was struck. */
  readonly acknowledged: number;
  readonly acknowledgedPinned: number;
  /** What the pinned ones were told instead. */
  readonly refusedPinned: number;
  readonly lost: number;
};

const lanes = 8;
const pinnedLanes = 50;
const pinnedTimeoutMs = 20_000;
const refusedPauseMs = 10;
const lookupsAtOnce = 64;

export class LostWriteProbe {
  readonly #client: HeadpondClient;
  readonly #pinned: HeadpondClient;
  readonly #directory: string;
  readonly #acknowledged: string[] = [];
  readonly #lanes: Promise<void>[] = [];
  #acknowledgedPinned = 0;
  #refusedPinned = 0;
  #counter = 0;
  #stopped = false;

  private constructor(client: HeadpondClient, pinned: HeadpondClient, directory: string) {
    this.#client = client;
    this.#pinned = pinned;
    this.#directory = directory;
  }

  /** `client` follows who leads, `pinned` is the RPC address of the master that will be struck. */
  static async start(client: HeadpondClient, pinned: string, directory: string): Promise<LostWriteProbe> {
    await client.mkdir(directory);
    const own = connect({ masters: [pinned], follow: false, timeoutMs: pinnedTimeoutMs });
    await own.stat(directory);
    const probe = new LostWriteProbe(client, own, directory);
    for (let i = 0; i < lanes; i++) probe.#lanes.push(probe.#write(client, false));
    for (let i = 0; i < pinnedLanes; i++) probe.#lanes.push(probe.#write(own, true));
    return probe;
  }

  /** Ends when every write was answered, and every acknowledged one was looked for. */
  async stop(): Promise<LostWrites> {
    this.#stopped = true;
    await Promise.all(this.#lanes);
    await this.#pinned.close();
    let lost = 0;
    await runOutstanding(this.#acknowledged.length, lookupsAtOnce, async (i) => {
      const path = this.#acknowledged[i] as string;
      await this.#client.stat(path).catch((error: unknown) => {
        if ((error as { readonly code?: string }).code !== "not-found") throw error;
        lost++;
      });
    });
    return {
      acknowledged: this.#acknowledged.length - this.#acknowledgedPinned,
      acknowledgedPinned: this.#acknowledgedPinned,
      refusedPinned: this.#refusedPinned,
      lost,
    };
  }

  async #write(client: HeadpondClient, isPinned: boolean): Promise<void> {
    while (!this.#stopped) {
      const path = `${this.#directory}/${this.#counter++}`;
      try {
        await client.create(path);
        this.#acknowledged.push(path);
        if (isPinned) this.#acknowledgedPinned++;
      } catch {
        if (isPinned) this.#refusedPinned++;
        await new Promise((done) => setTimeout(done, refusedPauseMs));
      }
    }
  }
}
