/**
 * The links of a worker to all masters. Those that are given are only a beginning: the masters tell who they are, and links
 * come and go with them. Of several that say that they lead, the one of the highest term that anybody has told of is in charge; an old
 * leader that was cut off or paused is not obeyed.
 */

import type { WorkerOrder } from "../base/cluster.ts";
import type { MasterList } from "../base/masters.ts";
import type { Logger } from "../io/logger.ts";
import { MasterDirectory } from "../rpc/master-directory.ts";
import { type MasterConnection, MasterLink, type MasterLinkDependencies } from "./master-link.ts";

export type MasterLinksDependencies = Omit<MasterLinkDependencies, "master" | "onOrder" | "onDetached"> & {
  /** Those that were given. */
  readonly masters: readonly MasterConnection[];
  /** A connection to another one, by its `host:port`; absent: there are no others. */
  readonly connect: ((address: string) => MasterConnection) | undefined;
  readonly onOrder: (order: WorkerOrder) => Promise<void>;
  readonly logger: Logger;
};

/** More masters than this are no cluster of ours. */
const linksMax = 16;

export class MasterLinks {
  readonly #deps: MasterLinksDependencies;
  readonly #directory: MasterDirectory;
  /** By `host:port`, the name of the connection. */
  readonly #links = new Map<string, MasterLink>();
  readonly #given: readonly string[];
  /** Links that are no longer wanted, until they have closed. */
  readonly #closing = new Set<Promise<void>>();
  #closed = false;

  constructor(dependencies: MasterLinksDependencies) {
    this.#deps = dependencies;
    this.#given = dependencies.masters.map(({ name }) => name);
    this.#directory = new MasterDirectory(this.#given);
    for (const master of dependencies.masters) this.#open(master);
  }

  all(): readonly MasterLink[] {
    return [...this.#links.values()];
  }

  /** The one to the master whose orders count. */
  inCharge(): MasterLink | undefined {
    let best: MasterLink | undefined;
    for (const link of this.#links.values()) {
      if (link.leads && link.term >= (best?.term ?? this.#directory.term)) best = link;
    }
    return best;
  }

  /** Attached ones, the one in charge first. */
  attached(): readonly MasterLink[] {
    const leader = this.inCharge();
    const attached = this.all().filter((link) => link.isAttached);
    return attached.sort((a, b) => Number(b === leader) - Number(a === leader));
  }

  /**
   * Resolves when all masters that are attached have answered for everything that changed before, and one of them is in charge; or
   * when the time for it is over: a master that cannot be reached takes this worker for lost soon.
   */
  async reported(): Promise<void> {
    const { clock, limits } = this.#deps;
    const deadlineMs = clock.monotonicMs() + limits.withdrawTimeoutMs;
    const over = new AbortController();
    const timeout = clock.sleep(limits.withdrawTimeoutMs, over.signal).catch(() => {});
    try {
      for (;;) {
        await Promise.race([timeout, Promise.all(this.all().map((link) => link.reported()))]);
        const leftMs = deadlineMs - clock.monotonicMs();
        if (this.#closed || leftMs <= 0 || this.inCharge() !== undefined) return;
        await clock.sleep(Math.min(leftMs, limits.backoffMinMs), over.signal);
      }
    } finally {
      over.abort(new Error("it is over"));
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.all().map((link) => link.close()), ...this.#closing]);
  }

  #open(master: MasterConnection): void {
    const { masters: _masters, connect: _connect, ...rest } = this.#deps;
    const link = new MasterLink({
      ...rest,
      master,
      onOrder: (from, order) => this.#onOrder(from, order),
      onDetached: () => this.#onDetached(master.name),
    });
    this.#links.set(master.name, link);
  }

  /** With no master left to tell of the others, those that were given are tried again: they may be other machines by now. */
  #onDetached(address: string): void {
    this.#directory.unreachable(address);
    const { connect } = this.#deps;
    if (connect === undefined || this.#closed || this.all().some((link) => link.isAttached)) return;
    for (const given of this.#given) if (!this.#links.has(given)) this.#open(connect(given));
  }

  async #onOrder(link: MasterLink, order: WorkerOrder): Promise<void> {
    if (order.kind === "masters") {
      this.#learn(link.master.name, order.list);
      return;
    }
    const isAnyones = order.kind === "welcome" || order.kind === "report-all";
    if (!isAnyones && link !== this.inCharge()) {
      const { kind } = order;
      const { term } = this.#directory;
      this.#deps.logger.info("an order of a master that does not lead is ignored", {
        from: link.master.name,
        kind,
        term,
      });
      return;
    }
    await this.#deps.onOrder(order);
  }

  #learn(from: string, list: MasterList): void {
    this.#directory.note(from, list);
    const { connect } = this.#deps;
    if (connect === undefined || this.#closed) return;
    const { members, isComplete, addresses } = this.#directory;
    // Before a leader has said who they are, somebody who was given may know better than whoever was reached.
    const wanted = new Set(isComplete ? members.values() : addresses);
    if (wanted.size > linksMax) return;
    for (const address of wanted) {
      if (this.#links.has(address)) continue;
      this.#deps.logger.info("one more master", { address });
      this.#open(connect(address));
    }
    for (const [address, link] of this.#links) {
      if (wanted.has(address)) continue;
      this.#deps.logger.info("no master is there any more", { address });
      this.#links.delete(address);
      const closed = link.close().catch(() => {});
      this.#closing.add(closed);
      void closed.finally(() => this.#closing.delete(closed));
    }
  }
}
