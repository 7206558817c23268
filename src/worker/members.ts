/** Who is live, as the masters' versioned list says, and what that means here: the workers of this egress domain. */

import type { WorkerAddress, WorkerList } from "../base/cluster.ts";
import type { BlockIndex, FileVersionId, WorkerId } from "../base/ids.ts";
import { egressDomain, type Place } from "../base/place.ts";
import { ownerOrder } from "../base/rendezvous.ts";
import type { Clock } from "../io/clock.ts";

/** How long a worker that did not answer is passed over before it is tried again. */
const suspicionMs = 2000;

export class Members {
  readonly self: WorkerId;
  readonly #domain: string;
  readonly #clock: Clock;
  #list: WorkerList = { version: 0, workers: [] };
  #changedMs = 0;
  #domainIds: readonly WorkerId[] = [];
  /** Those of the domain that stay; all of them, if none does. */
  #ownerIds: readonly WorkerId[] = [];
  readonly #byId = new Map<WorkerId, WorkerAddress>();
  readonly #suspectedUntilMs = new Map<WorkerId, number>();
  #waiters = new Set<() => void>();
  #first: Promise<boolean> | undefined;

  constructor(options: { readonly self: WorkerId; readonly place: Place; readonly clock: Clock }) {
    this.self = options.self;
    this.#domain = egressDomain(options.place);
    this.#clock = options.clock;
  }

  get version(): number {
    return this.#list.version;
  }

  get list(): WorkerList {
    return this.#list;
  }

  /** The newest list; which master's word counts is for `master-link.ts` to know. */
  setList(list: WorkerList): void {
    if (list.version !== this.#list.version) {
      this.#changedMs = this.#clock.monotonicMs();
      // Whoever is in a new list may have come back: while some pass it over and it does not, a block has two owners.
      this.#suspectedUntilMs.clear();
    }
    this.#list = list;
    this.#byId.clear();
    for (const worker of list.workers) {
      this.#byId.set(worker.id, worker);
    }
    const domain = list.workers.filter((w) => egressDomain(w.place) === this.#domain);
    const staying = domain.filter((w) => w.draining !== true);
    this.#domainIds = domain.map((w) => w.id);
    this.#ownerIds = staying.length > 0 ? staying.map((w) => w.id) : this.#domainIds;
    const waiters = this.#waiters;
    this.#waiters = new Set();
    for (const wake of waiters) wake();
  }

  /** How long the list has been as it is. */
  get unchangedForMs(): number {
    return this.#clock.monotonicMs() - this.#changedMs;
  }

  /** The workers of this domain, the best owner of the block first. */
  order(id: FileVersionId, block: BlockIndex): readonly WorkerId[] {
    return ownerOrder(id, block, this.#ownerIds);
  }

  /** The other workers of this domain. */
  peers(): readonly WorkerId[] {
    return this.#domainIds.filter((worker) => worker !== this.self);
  }

  isInDomain(worker: WorkerId): boolean {
    return this.#domainIds.includes(worker);
  }

  /** `host:port` of its data port. */
  address(worker: WorkerId): string | undefined {
    return this.#byId.get(worker)?.data;
  }

  place(worker: WorkerId): Place | undefined {
    return this.#byId.get(worker)?.place;
  }

  suspect(worker: WorkerId): void {
    this.#suspectedUntilMs.set(worker, this.#clock.monotonicMs() + suspicionMs);
  }

  trust(worker: WorkerId): void {
    this.#suspectedUntilMs.delete(worker);
  }

  isSuspected(worker: WorkerId): boolean {
    return (this.#suspectedUntilMs.get(worker) ?? 0) > this.#clock.monotonicMs();
  }

  suspected(): readonly WorkerId[] {
    return [...this.#suspectedUntilMs.keys()].filter((worker) => this.isSuspected(worker));
  }

  /** Before the first list came: waits for it, once and not for long. Later, and when none comes: at once. */
  async waitForFirst(timeoutMs: number): Promise<void> {
    if (this.#list.version > 0) return;
    this.#first ??= this.waitForVersion(1, timeoutMs);
    await this.#first;
  }

  /** Resolves when the list has at least `version`, or after `timeoutMs`; says which. */
  async waitForVersion(version: number, timeoutMs: number): Promise<boolean> {
    const deadlineMs = this.#clock.monotonicMs() + timeoutMs;
    while (this.#list.version < version) {
      const remainingMs = deadlineMs - this.#clock.monotonicMs();
      if (remainingMs <= 0) return false;
      await new Promise<void>((resolve) => {
        const timer = this.#clock.timer(remainingMs, () => {
          this.#waiters.delete(wake);
          resolve();
        });
        const wake = (): void => {
          timer.clear();
          resolve();
        };
        this.#waiters.add(wake);
      });
    }
    return true;
  }
}
