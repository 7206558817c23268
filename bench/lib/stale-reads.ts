/**
 * Counts stale reads: one client counts up a value at whoever leads, others ask one master only, which was cut off or frozen, and others whoever leads.
 * An answer that is older than what was acknowledged before its question is stale. There must be none; refusals are right.
 */

import { connect, type HeadpondClient } from "../../src/client/client.ts";

export type StaleReads = {
  /** Questions that the pinned master answered with a value. */
  readonly answered: number;
  /** Of clients that follow the leader. */
  readonly answeredFollowing: number;
  readonly refused: number;
  readonly stale: number;
  /** What the value was counted up to meanwhile. */
  readonly acknowledged: number;
};

const readers = 8;
const followers = 4;
const readTimeoutMs = 20_000;
/** So many of the questions that were refused at once are asked anew in a second, by each reader. */
const refusedPauseMs = 10;

export class StaleReadProbe {
  readonly #writer: HeadpondClient;
  readonly #pinned: HeadpondClient;
  readonly #path: string;
  #acknowledged = 0;
  #stopped = false;
  #answered = 0;
  #answeredFollowing = 0;
  #refused = 0;
  #stale = 0;
  readonly #lanes: Promise<void>[] = [];

  private constructor(writer: HeadpondClient, pinned: HeadpondClient, path: string) {
    this.#writer = writer;
    this.#pinned = pinned;
    this.#path = path;
  }

  /** `writer` follows the leader, `pinned` is the RPC address of the master that is asked. */
  static async start(writer: HeadpondClient, pinned: string, path: string): Promise<StaleReadProbe> {
    await writer.create(path, { attributes: { n: "0" } });
    const client = connect({ masters: [pinned], follow: false, timeoutMs: readTimeoutMs });
    // The connection stands before anything happens to the master.
    await client.stat(path);
    const probe = new StaleReadProbe(writer, client, path);
    probe.#lanes.push(probe.#countUp());
    for (let i = 0; i < readers; i++) probe.#lanes.push(probe.#read(client));
    for (let i = 0; i < followers; i++) probe.#lanes.push(probe.#read(writer));
    return probe;
  }

  /** Ends when every question that was asked has been answered or refused. */
  async stop(): Promise<StaleReads> {
    this.#stopped = true;
    await Promise.all(this.#lanes);
    await this.#pinned.close();
    return {
      answered: this.#answered,
      answeredFollowing: this.#answeredFollowing,
      refused: this.#refused,
      stale: this.#stale,
      acknowledged: this.#acknowledged,
    };
  }

  async #countUp(): Promise<void> {
    for (let next = 1; !this.#stopped; next++) {
      await this.#writer.setAttributes(this.#path, { set: { n: String(next) } });
      this.#acknowledged = next;
    }
  }

  async #read(client: HeadpondClient): Promise<void> {
    while (!this.#stopped) {
      const floor = this.#acknowledged;
      try {
        const { attributes } = await client.stat(this.#path);
        if (client === this.#pinned) this.#answered++;
        else this.#answeredFollowing++;
        if (Number(attributes["n"]) < floor) this.#stale++;
      } catch {
        if (client === this.#pinned) this.#refused++;
        await new Promise((done) => setTimeout(done, refusedPauseMs));
      }
    }
  }
}
