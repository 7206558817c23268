/**
 * Who should try to lead, for the shared journal: liveness only. Nothing that an election says makes a write count or a read
 * fresh; that is the storage's part (docs/shared-journal.md). `zookeeper-election.ts` asks ZooKeeper; simulations have their own.
 */

/** A master that takes part. */
export type Candidate = {
  readonly id: string;
  /** For clients and workers, `host:port`. */
  readonly rpc: string;
  readonly http: string;
  readonly featureLevel: number;
};

export type ElectionView = {
  /**
   * This master should lead, or try to: claim an epoch. Stays true for one that has announced that it leads while the service does not
   * answer. Who should and cannot (no storage, damage) yields, or nobody leads.
   */
  readonly shouldLead: boolean;
  /** Who should lead, as far as known. */
  readonly leaderId: string | undefined;
  readonly candidates: readonly Candidate[];
  /** Masters that took part once, do not now, and were not taken out: they may come back. */
  readonly absent?: readonly Candidate[];
  /** The service answers: a view that is not connected may be old. */
  readonly connected: boolean;
  /** Why this master cannot take part, e.g. the service has the masters of another cluster there. */
  readonly problem?: string | undefined;
};

export interface Election {
  readonly view: ElectionView;
  onChange(listener: (view: ElectionView) => void): void;
  /** Takes part from then on; resolves without waiting for the service, which is sought for as long as it takes. */
  start(): Promise<void>;
  /** Who leads tells the others that it does, since it claimed `epoch`: for status and clients. */
  announce(epoch: number): void;
  /**
   * Steps back, at once: behind the others, or so that `id` is the next. Without `id` it holds even when the service does not answer,
   * and is made known when it does; with one it rejects then. `not-found`: that one does not take part.
   */
  yieldTo(id: string | undefined, signal?: AbortSignal): Promise<void>;
  /** Takes a master that is absent out for good. `not-found`, `invalid`: it takes part. */
  forget?(id: string): Promise<void>;
  /** Leaves at once, so that the next need not wait for a session to expire. */
  close(): Promise<void>;
}
