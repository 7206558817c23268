/** Reads the documents that the state keeps for others: jobs, revisions, settings. */

import type { InodeId, JobId } from "../base/ids.ts";
import type { RevisionFile } from "./command.ts";
import { jobPrefix, jobProgressPrefix, keyNumber, revisionPrefix, rowKey, settingPrefix, textKey } from "./keys.ts";
import type { RowTable } from "./row-table.ts";

export type JobRow = { readonly jobId: JobId; readonly document: string; readonly progress: string | undefined };
export type Revision = {
  readonly commit: string;
  readonly recordedMs: number;
  readonly metadata: string;
  readonly files: readonly RevisionFile[];
};

export class Documents {
  readonly #rows: RowTable;

  constructor(rows: RowTable) {
    this.#rows = rows;
  }

  job(jobId: JobId): JobRow | undefined {
    const document = this.#rows.get(rowKey(jobPrefix, jobId));
    return document === undefined ? undefined : this.#jobRow(jobId, document);
  }

  /** In the order of their ids. */
  jobs(limit: number): JobRow[] {
    return this.#rows.list(jobPrefix, limit).map(({ key, value }) => this.#jobRow(keyNumber(key, 0) as JobId, value));
  }

  /** Of a directory, oldest first. */
  revisions(directoryInodeId: InodeId): Revision[] {
    return this.#rows
      .list(rowKey(revisionPrefix, directoryInodeId), Number.POSITIVE_INFINITY)
      .map(({ value }) => JSON.parse(value.toString("utf8")) as Revision);
  }

  setting(key: string): string | undefined {
    return this.#rows.get(textKey(settingPrefix, key))?.toString("utf8");
  }

  /** Those whose names begin with `prefix`, in the order of their bytes. */
  settings(prefix: string, limit: number): { readonly key: string; readonly value: string }[] {
    return this.#rows
      .list(textKey(settingPrefix, prefix), limit)
      .map(({ key, value }) => ({ key: key.toString("utf8", 1), value: value.toString("utf8") }));
  }

  #jobRow(jobId: JobId, document: Buffer): JobRow {
    const progress = this.#rows.get(rowKey(jobProgressPrefix, jobId));
    return { jobId, document: document.toString("utf8"), progress: progress?.toString("utf8") };
  }
}
