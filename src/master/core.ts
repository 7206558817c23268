/**
 * What all handlers of the master share: who may be answered (only a leader changes anything or reads linearizably), how a
 * command is proposed, which mount holds a path, and what must be known of an under store before a path is answered.
 */

import { HeadpondError } from "../base/errors.ts";
import type { FileStatus } from "../base/file.ts";
import type { MountId } from "../base/ids.ts";
import type { Path } from "../base/path.ts";
import type { Clock } from "../io/clock.ts";
import type { Journal } from "../journal/journal.ts";
import type { CommandResult, Origin, Stamp } from "../namespace/command.ts";
import type { Namespace } from "../namespace/namespace.ts";
import type { MountRow } from "../namespace/registry.ts";
import type { Consistency } from "../rpc/master-service.ts";
import type { Intents } from "./intents.ts";
import type { Proposer } from "./proposer.ts";
import type { MetadataSync } from "./sync.ts";

export type CoreDependencies = {
  readonly namespace: Namespace;
  readonly journal: Journal<CommandResult>;
  readonly proposer: Proposer;
  readonly sync: MetadataSync;
  readonly intents: Intents;
  readonly clock: Clock;
  /** Of a leader: whether it is not yet level with what was acknowledged before it, or its parts are not started. */
  readonly takesOver: () => boolean;
};

/** What clients wait until they ask a leader again that takes over: a round trip between masters, about. */
const takeOverRetryMs = 5;

export class Core {
  readonly namespace: Namespace;
  readonly journal: Journal<CommandResult>;
  readonly proposer: Proposer;
  readonly sync: MetadataSync;
  readonly intents: Intents;
  readonly clock: Clock;
  readonly #takesOver: () => boolean;
  readonly #mounts = new Map<Path, MountRow>();

  constructor(dependencies: CoreDependencies) {
    this.namespace = dependencies.namespace;
    this.journal = dependencies.journal;
    this.proposer = dependencies.proposer;
    this.sync = dependencies.sync;
    this.intents = dependencies.intents;
    this.clock = dependencies.clock;
    this.#takesOver = dependencies.takesOver;
  }

  get mountCount(): number {
    return this.namespace.mountCount;
  }

  get isLeader(): boolean {
    return this.journal.role === "leader";
  }

  /** Throws `not-leader` with `details.leader`, when one is known; `overloaded` for the moment in which a new leader takes over. */
  requireLeader(): void {
    if (this.journal.role === "leader") {
      if (!this.#takesOver()) return;
      throw new HeadpondError("overloaded", "this master was elected and takes over: ask again in a moment", {
        details: { retryAfterMs: takeOverRetryMs },
      });
    }
    const leader = this.journal.leaderAddress;
    if (leader === undefined)
      throw new HeadpondError("not-leader", "this master does not lead, and knows of no leader: ask the others");
    throw new HeadpondError("not-leader", `this master does not lead: ask ${leader}`, { details: { leader } });
  }

  /** Undefined: the state may be read at once with this consistency. Throws or rejects with `not-leader`. */
  barrier(consistency: Consistency | undefined): Promise<void> | undefined {
    if (consistency !== undefined && consistency !== "linearizable") return undefined;
    if (this.journal.mayRead) return undefined;
    return this.journal.readBarrier();
  }

  /** What a read of relaxed consistency was worth; nothing to say of a linearizable one. */
  readInfo(
    consistency: Consistency | undefined,
  ): { readonly appliedIndex: number; readonly staleMs: number } | undefined {
    if (consistency === undefined || consistency === "linearizable") return undefined;
    const staleMs = this.isLeader ? 0 : Math.max(0, this.proposer.nowMs() - this.namespace.nowMs);
    return { appliedIndex: this.namespace.applied.index, staleMs };
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
    if (mount !== undefined) await this.sync.beforeRead(path, mount, status);
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
