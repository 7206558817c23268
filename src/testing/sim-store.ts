/**
 * The store of a simulated master's state. It outlives the process with what was committed, as LMDB's file does; when the machine loses
 * power it may be as it was, older, or damaged. Copies are files on the master's own disk, so that they can be torn, sent to others and
 * checked like any checkpoint.
 */

import { HeadpondError } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import type { Disk } from "../io/disk.ts";
import { MemoryStore } from "../namespace/memory-store.ts";
import { Batch, inodesTable, namesTable, rowsTable, type Store, type Table } from "../namespace/store.ts";

const tables: readonly Table[] = [inodesTable, namesTable, rowsTable];
/** A copy of every so manieth commit is kept: what an older state can be. */
const olderEveryCommits = 5;

/** What a machine keeps of the state, whichever process uses it. */
export class StateAtRest {
  #memory = new MemoryStore();
  #hasOlder = false;

  /** For the next process: what an earlier one had under way is lost. */
  open(disk: Disk): Store {
    this.#memory.crash();
    return new SimStore(disk, this.#memory, () => this.#keepOlder());
  }

  /** The machine lost power: pages were written in any order, or not at all. */
  async powerLoss(random: Random): Promise<void> {
    const fate = random.pick(["as it was", "older", "empty", "damaged"] as const);
    if (fate === "older" && this.#hasOlder) await this.#memory.replace("older");
    if (fate === "empty") await this.wipe();
    if (fate === "damaged") await this.#loseRows(random);
  }

  async wipe(): Promise<void> {
    this.#memory = new MemoryStore();
    this.#hasOlder = false;
  }

  #keepOlder(): void {
    if (this.#memory.commits % olderEveryCommits !== 0) return;
    this.#hasOlder = true;
    void this.#memory.backup("older");
  }

  /** Of names only: the rest would not even open. */
  async #loseRows(random: Random): Promise<void> {
    const batch = new Batch();
    this.#memory.scan(namesTable, Buffer.alloc(0), (key) => {
      if (random.chance(0.3)) batch.put(namesTable, Buffer.from(key), undefined);
      return true;
    });
    await this.#memory.commit(batch);
  }
}

class SimStore implements Store {
  readonly #disk: Disk;
  readonly #memory: MemoryStore;
  readonly #onCommit: () => void;

  constructor(disk: Disk, memory: MemoryStore, onCommit: () => void) {
    this.#disk = disk;
    this.#memory = memory;
    this.#onCommit = onCommit;
  }

  get(table: Table, key: Uint8Array): Buffer | undefined {
    return this.#memory.get(table, key);
  }

  scan(table: Table, from: Uint8Array, visit: (key: Buffer, value: Buffer) => boolean): void {
    this.#memory.scan(table, from, visit);
  }

  async commit(batch: Batch): Promise<void> {
    await this.#memory.commit(batch);
    this.#onCommit();
  }

  async backup(path: string): Promise<undefined> {
    const rows: Row[] = [];
    for (const table of tables) {
      this.#memory.scan(table, Buffer.alloc(0), (key, value) => {
        rows.push([table, key.toString("base64"), value.toString("base64")]);
        return true;
      });
    }
    const file = await this.#disk.open(path, "create");
    try {
      await file.write(Buffer.from(JSON.stringify(rows), "utf8"), 0);
      await file.datasync();
    } finally {
      await file.close();
    }
  }

  async replace(path: string | undefined): Promise<void> {
    const batch = new Batch();
    if (path !== undefined) {
      for (const [table, key, value] of await this.#read(path)) batch.put(table, decode(key), decode(value));
    }
    await this.#memory.replace(undefined);
    await this.#memory.commit(batch);
  }

  async peek(path: string, table: Table, key: Uint8Array): Promise<Buffer | undefined> {
    const wanted = Buffer.from(key).toString("base64");
    const row = (await this.#read(path)).find(([of, name]) => of === table && name === wanted);
    return row === undefined ? undefined : decode(row[2]);
  }

  async close(): Promise<void> {}

  async #read(path: string): Promise<readonly Row[]> {
    const { sizeBytes } = await this.#disk.stat(path);
    const bytes = Buffer.alloc(sizeBytes);
    const file = await this.#disk.open(path, "read");
    try {
      await file.read(bytes, 0);
    } finally {
      await file.close();
    }
    try {
      return JSON.parse(bytes.toString("utf8")) as readonly Row[];
    } catch (error) {
      throw new HeadpondError("corrupt", `${path}: offset 0: no copy of a state`, { cause: error });
    }
  }
}

type Row = readonly [Table, string, string];

function decode(text: string): Buffer {
  return Buffer.from(text, "base64");
}
