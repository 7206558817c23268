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
  /** This master should lead, or try to. */
  readonly shouldLead: boolean;
  /** Who should lead, as far as known. */
  readonly leaderId: string | undefined;
  readonly candidates: readonly Candidate[];
  /** The service answers: a view that is not connected may be old. */
  readonly connected: boolean;
};

export interface Election {
  readonly view: ElectionView;
  onChange(listener: (view: ElectionView) => void): void;
  /** Takes part from then on; resolves without waiting for the service, which is sought for as long as it takes. */
  start(): Promise<void>;
  /** Who leads tells the others that it does, since it claimed `epoch`: for status and clients. */
  announce(epoch: number): void;
  /** Steps back behind the others, or makes `id` the next. `not-found`: it does not take part. */
  yieldTo(id: string | undefined, signal?: AbortSignal): Promise<void>;
  /** Leaves at once, so that the next need not wait for a session to expire. */
  close(): Promise<void>;
}
