/**
 * Linearizable reads. A leader answers at once while its lease holds; else it asks a quorum, in a round of heartbeats
 * that begins after the read came in, whether it still leads. A follower asks the leader. What is promised is an index:
 * any state in which it is applied sees all that was acknowledged before the read.
 *
 * A new leader may not know yet what was committed before it, so its reads wait for the first commit of its term.
 */

import type { Random } from "../base/random.ts";
import type { Outbox } from "./outbox.ts";
import type { NodeId, ReadGrant, ReadRefusal, RefusalReason } from "./types.ts";

type Read = {
  /** Who asked: this member or a follower. */
  readonly from: NodeId;
  /** The context of an own read, the request number of a follower's. */
  readonly context: number;
};
type Indexed = Read & { readonly index: number };

export class Reads {
  /** For the first commit of the term. */
  #waiting: Read[] = [];
  /** For a round to begin. */
  #roundless: Indexed[] = [];
  /** For answers of a quorum, in the order of their rounds. */
  #asked: (Indexed & { readonly round: number })[] = [];
  /** For the leader's answer, by request number. */
  readonly #forwarded = new Map<number, { readonly context: number; readonly sinceMs: number }>();
  /** Never used again, so that an old answer answers nothing new. */
  #lastRequest: number;
  #granted: ReadGrant[] = [];
  #refused: ReadRefusal[] = [];

  readonly #id: NodeId;
  readonly #outbox: Outbox;

  constructor(options: { readonly id: NodeId; readonly outbox: Outbox; readonly random: Random }) {
    this.#id = options.id;
    this.#outbox = options.outbox;
    // An answer to a request of an earlier life of this member must not answer one of this life.
    this.#lastRequest = options.random.uint32() * 2 ** 20;
  }

  get pendingCount(): number {
    return this.#waiting.length + this.#roundless.length + this.#asked.length + this.#forwarded.size;
  }

  /** For the first commit of the leader's term. */
  wait(read: Read): void {
    this.#waiting.push(read);
  }

  /** For a quorum's word that the leader still leads. `index` is committed now. */
  ask(read: Read, index: number): void {
    this.#roundless.push({ ...read, index });
  }

  /** The leader has committed in its term: those that waited can be asked for. */
  firstCommit(index: number): void {
    for (const read of this.#waiting) this.ask(read, index);
    this.#waiting = [];
  }

  get needsRound(): boolean {
    return this.#roundless.length > 0;
  }

  /** `round` begins now, after all reads that are waiting for one came in. */
  beginRound(round: number): void {
    for (const read of this.#roundless) this.#asked.push({ ...read, round });
    this.#roundless = [];
  }

  /** A quorum answered `round`, and all before it. */
  confirm(round: number, term: number): void {
    let count = 0;
    while ((this.#asked[count]?.round ?? Number.POSITIVE_INFINITY) <= round) count++;
    for (const { index, ...read } of this.#asked.splice(0, count)) this.reply(read, term, index, "quorum");
  }

  /** Index 0 refuses. */
  reply({ from, context }: Read, term: number, index: number, via: ReadGrant["via"]): void {
    if (from === this.#id) this.#granted.push({ context, index, via });
    else this.#outbox.send({ type: "read-reply", from: this.#id, to: from, term, request: context, index });
  }

  forward(context: number, leader: NodeId, term: number, uptimeMs: number): void {
    const request = ++this.#lastRequest;
    this.#forwarded.set(request, { context, sinceMs: uptimeMs });
    this.#outbox.send({ type: "read", from: this.#id, to: leader, term, request });
  }

  /** The leader's answer; 0 is a refusal. Others than those asked for are ignored. */
  answer(request: number, index: number): void {
    const read = this.#forwarded.get(request);
    if (read === undefined) return;
    this.#forwarded.delete(request);
    if (index === 0) this.refuse(read.context, "not-leader");
    else this.#granted.push({ context: read.context, index, via: "quorum" });
  }

  refuse(context: number, reason: RefusalReason): void {
    this.#refused.push({ context, reason });
  }

  /** Gives up what was asked of a leader more than `timeoutMs` ago. */
  expire(uptimeMs: number, timeoutMs: number): void {
    for (const [request, { context, sinceMs }] of this.#forwarded) {
      if (uptimeMs - sinceMs <= timeoutMs) return;
      this.#forwarded.delete(request);
      this.refuse(context, "timeout");
    }
  }

  /** The leader, this member or another, is no more: nothing that waits will be answered. Followers find out by themselves. */
  refuseAll(): void {
    for (const { from, context } of [...this.#waiting, ...this.#roundless, ...this.#asked]) {
      if (from === this.#id) this.refuse(context, "not-leader");
    }
    for (const { context } of this.#forwarded.values()) this.refuse(context, "not-leader");
    this.#waiting = [];
    this.#roundless = [];
    this.#asked = [];
    this.#forwarded.clear();
  }

  take(): { readonly reads: readonly ReadGrant[]; readonly refusedReads: readonly ReadRefusal[] } {
    const result = { reads: this.#granted, refusedReads: this.#refused };
    this.#granted = [];
    this.#refused = [];
    return result;
  }
}
