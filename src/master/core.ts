/**
 * What all handlers of the master share: who may be answered (only a leader changes anything or reads linearizably), how a
 * command is proposed, which mount holds a path, and what must be known of an under store before a path is answered.
 */

import { HeadpondError } from "../base/errors.ts";
import type { FileStatus } from "../base/file.ts";
import type { MasterId, MountId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import type { Clock } from "../io/clock.ts";
import type { Journal } from "../journal/journal.ts";
import type { CommandResult, Origin, Stamp } from "../namespace/command.ts";
import type { Namespace } from "../namespace/namespace.ts";
import type { MountRow } from "../namespace/registry.ts";
import type { ReadOptions } from "../rpc/master-service.ts";
import type { Intents } from "./intents.ts";
import type { Proposer } from "./proposer.ts";
import type { MetadataSync } from "./sync.ts";

export type CoreDependencies = {
  readonly id: MasterId;
  readonly namespace: Namespace;
  readonly journal: Journal<CommandResult>;
  readonly proposer: Proposer;
  readonly sync: MetadataSync;
  readonly intents: Intents;
  readonly clock: Clock;
  /** Of a leader: whether it is not yet level with what was acknowledged before it, or its parts are not started. */
  readonly takesOver: () => boolean;
  /** Why nothing may be answered from this master's state; undefined: it may. */
  readonly alarm: () => string | undefined;
};

/** How old the state may be that answers a `stale` read which names no bound. */
export const maxStaleMsDefault = 1000;

/** What clients wait until they ask a leader again that takes over: a round trip between masters, about. */
const takeOverRetryMs = 5;

export class Core {
  readonly namespace: Namespace;
  readonly journal: Journal<CommandResult>;
  readonly proposer: Proposer;
  readonly sync: MetadataSync;
  readonly intents: Intents;
  readonly clock: Clock;
  readonly #id: MasterId;
  readonly #takesOver: () => boolean;
  readonly #alarm: () => string | undefined;
  readonly #mounts = new Map<Path, MountRow>();
  /** Shared by all that ask for it before it begins. */
  #nextBarrier: Promise<void> | undefined;

  constructor(dependencies: CoreDependencies) {
    this.namespace = dependencies.namespace;
    this.journal = dependencies.journal;
    this.proposer = dependencies.proposer;
    this.sync = dependencies.sync;
    this.intents = dependencies.intents;
    this.clock = dependencies.clock;
    this.#id = dependencies.id;
    this.#takesOver = dependencies.takesOver;
    this.#alarm = dependencies.alarm;
  }

  get mountCount(): number {
    return this.namespace.mountCount;
  }

  /** Whether it leads, and has taken over: what it orders counts. */
  get leads(): boolean {
    return this.journal.role === "leader" && !this.#takesOver();
  }

  /** The others take it for the leader, and its state does not hold yet what was committed before. */
  #isElected(): boolean {
    return this.journal.cluster?.members().find(({ leader }) => leader)?.id === this.#id;
  }

  /** Throws `not-leader` with `details.leader`, when one is known; `overloaded` for the moment in which a new leader takes over. */
  requireLeader(): void {
    if (this.leads) return;
    if (this.journal.role === "leader" || this.#isElected()) {
      throw new HeadpondError("overloaded", "this master was elected and takes over: ask again in a moment", {
        details: { retryAfterMs: takeOverRetryMs },
      });
    }
    const leader = this.journal.leaderAddress;
    const { term } = this.journal.status();
    if (leader === undefined) {
      throw new HeadpondError("not-leader", "this master does not lead, and knows of no leader: ask the others", {
        details: { term },
      });
    }
    throw new HeadpondError("not-leader", `this master does not lead: ask ${leader}`, { details: { leader, term } });
  }

  /**
   * Undefined: the state may be read at once as `read` asks for. Else it may when this resolves; any master can then answer. Rejects
   * when it cannot be known in time that the state is new enough. Throws `unavailable` when this master's state is not to be trusted.
   */
  barrier({ consistency, maxStaleMs }: ReadOptions): Promise<void> | undefined {
    const alarm = this.#alarm();
    if (alarm !== undefined) throw new HeadpondError("unavailable", alarm);
    if (consistency === "local") return undefined;
    if (this.journal.mayRead) return undefined;
    if (consistency !== "stale") return this.#barrierOfTurn();
    const boundMs = maxStaleMs ?? maxStaleMsDefault;
    const staleMs = this.#staleMs();
    return staleMs !== undefined && staleMs <= boundMs ? undefined : this.#barrierOfTurn();
  }

  /** What a read of relaxed consistency was worth; nothing to say of a linearizable one. */
  readInfo({ consistency }: ReadOptions): { readonly appliedIndex: number; readonly staleMs?: number } | undefined {
    if (consistency === undefined || consistency === "linearizable") return undefined;
    const staleMs = this.#staleMs();
    const { index: appliedIndex } = this.namespace.applied;
    return staleMs === undefined ? { appliedIndex } : { appliedIndex, staleMs };
  }

  /** Since when the state is known to hold all that was acknowledged; undefined: it never was. */
  #staleMs(): number | undefined {
    const { cluster, mayRead } = this.journal;
    if (cluster === undefined || mayRead) return 0;
    const freshnessMs = cluster.freshnessMs();
    return freshnessMs === undefined ? undefined : Math.ceil(freshnessMs);
  }

  /**
   * One barrier for all reads that came in one turn. It begins at the end of the turn, so it is asked for after each of them: what was
   * acknowledged to anybody before one of these reads was sent, it sees.
   */
  #barrierOfTurn(): Promise<void> {
    this.#nextBarrier ??= this.clock.nextTurn().then(() => {
      this.#nextBarrier = undefined;
      return this.journal.readBarrier();
    });
    return this.#nextBarrier;
  }

  /** The mount of a status, with its options; the same object as long as the mount is the same. */
  mountOfStatus(status: FileStatus): MountRow | undefined {
    return status.mount === undefined ? undefined : this.#mountAt(status.mount);
  }

  /** The innermost mount that holds `path`, whether or not the path exists. */
  mountOf(path: Path): MountRow | undefined {
    const found = this.namespace.mountOf(path);
    return found === undefined ? undefined : this.#mountAt(found.path);
  }

  mountById(id: MountId): MountRow | undefined {
    return this.namespace.mountWithSecrets(id);
  }

  mounts(): MountRow[] {
    return this.namespace
      .mounts()
      .map(({ id }) => this.namespace.mountWithSecrets(id))
      .filter((mount) => mount !== undefined);
  }

  /**
   * Before a read of a path under a mount, whose status is `status`. Undefined: what is known may be served. Only a leader looks at
   * stores; a standby throws `not-leader` when what it knows is not new enough by the mount's own rule.
   */
  beforeRead(path: Path, mount: MountRow, status: FileStatus | undefined): Promise<void> | undefined {
    if (this.#looksAtStores(() => this.sync.isFresh(path, mount, status))) {
      return this.sync.beforeRead(path, mount, status);
    }
    return undefined;
  }

  /** As `beforeRead`, of a directory that is listed. */
  async beforeList(path: Path, mount: MountRow, signal: AbortSignal): Promise<void> {
    if (this.#looksAtStores(() => this.sync.isListingFresh(path, mount)))
      await this.sync.beforeList(path, mount, signal);
  }

  #looksAtStores(isFresh: () => boolean): boolean {
    if (this.leads) return true;
    if (!isFresh()) this.requireLeader();
    return false;
  }

  /** Before a change of `path`: what the under store has there is known. Undefined: at once. */
  beforeChange(path: Path): Promise<void> | undefined {
    const status = this.namespace.find(path);
    if (status !== undefined && status.mount === undefined) return undefined;
    const mount = this.mountOf(path);
    return mount === undefined ? undefined : this.sync.beforeRead(path, mount, status);
  }

  /** While the state is far ahead of its store, new commands wait for it. Undefined: go on. */
  backPressure(): Promise<void> | undefined {
    return this.namespace.pressure >= 1 ? this.namespace.drained() : undefined;
  }

  /** The status of a path, after what its under store has to say of it. Throws `not-found` and the like. */
  async statFresh(path: Path): Promise<FileStatus> {
    const status = this.namespace.find(path);
    const mount = status === undefined ? this.mountOf(path) : this.mountOfStatus(status);
    if (mount !== undefined) await this.beforeRead(path, mount, status);
    return this.namespace.stat(path);
  }

  #mountAt(path: Path): MountRow | undefined {
    const cached = this.#mounts.get(path);
    if (cached !== undefined && this.namespace.mountWithSecrets(cached.id) === cached) return cached;
    this.#mounts.delete(path);
    const info = this.namespace.mountOf(path);
    const mount = info === undefined ? undefined : this.namespace.mountWithSecrets(info.id);
    if (mount?.path === path) this.#mounts.set(path, mount);
    return mount;
  }
}

/** Mutations' common fields, as a command carries them. */
export function stampOf(request: { readonly origin?: Origin; readonly requestId?: string }, timeMs: number): Stamp {
  if (request.origin === undefined && request.requestId === undefined) return { timeMs };
  return {
    timeMs,
    ...(request.origin === undefined ? {} : { origin: request.origin }),
    ...(request.requestId === undefined ? {} : { requestId: request.requestId }),
  };
}
