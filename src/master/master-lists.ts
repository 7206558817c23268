/**
 * What this master tells clients and workers about the masters: who they are, where, and who leads, as it sees it. Told when
 * somebody begins to listen, and again whenever it changes. A list replaces the one before it, so a slow listener misses none that counts.
 */

import type { MasterId } from "../base/ids.ts";
import type { MasterList } from "../base/masters.ts";
import type { Journal } from "../journal/journal.ts";

export type MasterListsDependencies = {
  readonly journal: Journal<unknown>;
  readonly id: MasterId;
  /** Whether this master leads and has taken over. */
  readonly leads: () => boolean;
  /** `host:port` for clients and workers, as others should use it. */
  readonly rpc: () => string;
};

export class MasterLists {
  readonly #deps: MasterListsDependencies;
  readonly #listeners = new Set<(list: MasterList) => void>();
  readonly #waiting = new Set<() => void>();
  #current: MasterList | undefined;
  #text = "";
  #closed = false;

  constructor(dependencies: MasterListsDependencies) {
    this.#deps = dependencies;
    dependencies.journal.onRoleChange(() => this.refresh());
    const { journal } = dependencies;
    const refresh = (): void => this.refresh();
    if (journal.onMembersChange === undefined) journal.cluster?.onMembersChange(refresh);
    else journal.onMembersChange(refresh);
  }

  /** The same object until it changes. */
  get current(): MasterList {
    this.refresh();
    return this.#current as MasterList;
  }

  onChange(listener: (list: MasterList) => void): void {
    this.#listeners.add(listener);
  }

  /** Tells everybody, if there is news. */
  refresh(): void {
    if (!this.#look() || this.#closed) return;
    const list = this.#current as MasterList;
    for (const listener of this.#listeners) listener(list);
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }

  /** The present list, and each newer one. Ends when the signal fires. */
  async *watch(signal: AbortSignal): AsyncGenerator<MasterList> {
    let sent: MasterList | undefined;
    while (!signal.aborted && !this.#closed) {
      const { current } = this;
      if (current !== sent) {
        sent = current;
        yield current;
        continue;
      }
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.#waiting.delete(wake);
          signal.removeEventListener("abort", wake);
          resolve();
        };
        this.#waiting.add(wake);
        signal.addEventListener("abort", wake, { once: true });
      });
    }
  }

  /** Ends all that listen. */
  close(): void {
    this.#closed = true;
    for (const wake of [...this.#waiting]) wake();
  }

  /** Whether it has changed. */
  #look(): boolean {
    const list = this.#make();
    const text = JSON.stringify(list);
    if (text === this.#text) return false;
    this.#text = text;
    this.#current = list;
    return true;
  }

  #make(): MasterList {
    const { journal, id, rpc } = this.#deps;
    const { term } = journal.status();
    const leads = this.#deps.leads() ? { leads: true } : {};
    const { cluster } = journal;
    // The only one is where whoever asks has reached it; that address may be better than what it knows of itself.
    if (cluster === undefined) {
      const leader = journal.role === "leader" ? { leader: id } : {};
      return { self: id, term, ...leader, masters: [{ id, voter: true }], ...leads };
    }
    const members = cluster.members();
    const leader = journal.role === "leader" ? id : members.find((member) => member.leader)?.id;
    return {
      self: id,
      term,
      ...(leader === undefined ? {} : { leader: leader as MasterId }),
      masters: members.map((member) => {
        const address = member.id === id ? rpc() : member.rpc;
        const known = address === undefined || address === "" ? {} : { rpc: address };
        return { id: member.id as MasterId, ...known, voter: member.voter };
      }),
      ...leads,
    };
  }
}
