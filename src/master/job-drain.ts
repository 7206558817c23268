/**
 * Workers that are to be emptied, as the journal keeps them: one document of the kind `drain` each, among the jobs, so that a new
 * leader goes on. It stays until it is taken back: a drained worker that comes up again is still not given anything.
 */

import Type, { type Static } from "typebox";
import { Compile } from "typebox/compile";
import type { JobId, WorkerId } from "../base/ids.ts";
import { TimeMs, WorkerIdSchema } from "../base/schema.ts";
import type { StoredJob } from "./job-document.ts";
import type { Proposer } from "./proposer.ts";

const DrainDocument = Type.Object({
  format: Type.Literal(1),
  kind: Type.Literal("drain"),
  worker: WorkerIdSchema,
  startedMs: TimeMs,
});
type DrainDocument = Static<typeof DrainDocument>;
const check = Compile(DrainDocument);

/** Undefined: it is another job. */
export function readDrain(text: string): DrainDocument | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return check.Check(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

export class Drains {
  readonly #stored: () => Iterable<StoredJob>;
  readonly #proposer: Proposer;
  readonly #byWorker = new Map<WorkerId, { readonly jobId: JobId; readonly startedMs: number }>();

  constructor(dependencies: { readonly stored: () => Iterable<StoredJob>; readonly proposer: Proposer }) {
    this.#stored = dependencies.stored;
    this.#proposer = dependencies.proposer;
  }

  /** As the state has them: a leader that begins knows nothing else. */
  load(): void {
    this.#byWorker.clear();
    for (const { id, document } of this.#stored()) {
      const drain = readDrain(document);
      if (drain !== undefined) this.#byWorker.set(drain.worker, { jobId: id, startedMs: drain.startedMs });
    }
  }

  get workers(): ReadonlySet<WorkerId> {
    return new Set(this.#byWorker.keys());
  }

  startedMs(worker: WorkerId): number | undefined {
    return this.#byWorker.get(worker)?.startedMs;
  }

  /** Durable when it resolves. */
  async add(worker: WorkerId): Promise<void> {
    if (this.#byWorker.has(worker)) return;
    const timeMs = this.#proposer.nowMs();
    const document: DrainDocument = { format: 1, kind: "drain", worker, startedMs: timeMs };
    const { jobId } = await this.#proposer.propose({ kind: "put-job", document: JSON.stringify(document), timeMs });
    this.#byWorker.set(worker, { jobId, startedMs: timeMs });
  }

  async remove(worker: WorkerId): Promise<void> {
    const known = this.#byWorker.get(worker);
    if (known === undefined) return;
    await this.#proposer.propose({ kind: "remove-job", jobId: known.jobId, timeMs: this.#proposer.nowMs() });
    this.#byWorker.delete(worker);
  }
}
