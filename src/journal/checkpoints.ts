/**
 * Checkpoints (docs/formats/checkpoint.md): the state saved so that the log can be cut. One is a file that the state
 * machine wrote and a manifest with its checksum; it counts once the manifest has its name, and nothing is cut before.
 *
 * The newest two are kept, and the log from the older of them: if the newest turns out damaged, the older and its log
 * give the same state (docs/decisions/0010). Each is verified as a whole before it is used.
 */

import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import { MiB } from "../base/units.ts";
import type { Disk } from "../io/disk.ts";
import { Xxh64 } from "../io/hash.ts";
import { configurationFromJson, configurationToJson } from "../raft/membership.ts";
import type { Configuration } from "../raft/types.ts";
import type { StateMachine } from "./journal.ts";
import { readCheckedJson, writeCheckedJson } from "./journal-meta.ts";

const keptCheckpoints = 2;

export type Checkpoint = {
  readonly index: number;
  readonly term: number;
  /** The state machine's digest at `index`. */
  readonly digest: string;
  readonly bytes: number;
  readonly xxh64: string;
  readonly path: string;
  /** The membership in force at `index`; `undefined` in a local journal. */
  readonly configuration?: Configuration | undefined;
  /** It came from another master: the log need not reach up to it. */
  readonly received?: boolean;
};

export class Checkpoints {
  readonly #disk: Disk;
  readonly #directory: string;
  #known: readonly Checkpoint[] = [];

  constructor(options: { readonly disk: Disk; readonly directory: string }) {
    this.#disk = options.disk;
    this.#directory = options.directory;
  }

  /** Oldest first. */
  get known(): readonly Checkpoint[] {
    return this.#known;
  }

  get newest(): Checkpoint | undefined {
    return this.#known.at(-1);
  }

  /**
   * Reads the manifests, and removes what a crash left unfinished. A damaged manifest is reported and its checkpoint
   * left out: an older one, or the log from its beginning, can stand in for it.
   */
  async open(onDamage: (error: HeadpondError) => void): Promise<void> {
    const names = await this.#disk.list(this.#directory);
    const found: Checkpoint[] = [];
    const used = new Set<string>();
    for (const name of names) {
      const index = parseManifestName(name);
      if (index === undefined) continue;
      used.add(name).add(stateName(index));
      try {
        found.push(await readManifest(this.#disk, this.#directory, name, index));
      } catch (error) {
        if (!isHeadpondError(error, "corrupt")) throw error;
        onDamage(error);
      }
    }
    this.#known = found.sort((a, b) => a.index - b.index);
    // A killed process may have named one and not made the name durable: from here on the log may be cut because of it.
    await this.#disk.syncDirectory(this.#directory);
    for (const name of names) if (!used.has(name)) await this.#disk.removeTree(`${this.#directory}/${name}`);
  }

  /**
   * Lets the machine write its state; durable and counted when it resolves. `configurationAt`: in force at an index; what
   * it throws ends the checkpoint.
   */
  async write(
    machine: Pick<StateMachine<unknown>, "writeCheckpoint">,
    configurationAt?: (index: number) => Configuration,
    signal?: AbortSignal,
  ): Promise<Checkpoint> {
    const unfinished = `${this.#directory}/unfinished`;
    await this.#disk.removeTree(unfinished);
    const { index, term, digest, sum } = await machine.writeCheckpoint(unfinished, signal);
    const existing = this.#known.find((checkpoint) => checkpoint.index === index);
    if (existing !== undefined) {
      await this.#disk.removeTree(unfinished);
      return existing;
    }
    const path = `${this.#directory}/${stateName(index)}`;
    const { bytes, xxh64 } = sum ?? (await sumFile(this.#disk, unfinished));
    const configuration = configurationAt?.(index);
    await this.#disk.rename(unfinished, path);
    return this.#count({ index, term, digest, bytes, xxh64, path, configuration });
  }

  /** Takes over a file that came from another master, whole and durable at `from`; its name is this checkpoint's afterwards. */
  async adopt(
    from: string,
    about: Pick<Checkpoint, "index" | "term" | "digest" | "bytes" | "xxh64"> & {
      /** `undefined`: for a local journal. */
      readonly configuration: Configuration | undefined;
    },
  ): Promise<Checkpoint> {
    const existing = this.#known.find((checkpoint) => checkpoint.index === about.index);
    if (existing !== undefined) {
      await this.#disk.removeTree(from);
      return existing;
    }
    const path = `${this.#directory}/${stateName(about.index)}`;
    await this.#disk.rename(from, path);
    return this.#count({ ...about, path, received: true });
  }

  /** Removes the one at `index`, if there is one. */
  async forget(index: number): Promise<void> {
    const found = this.#known.find((checkpoint) => checkpoint.index === index);
    if (found === undefined) return;
    this.#known = this.#known.filter((checkpoint) => checkpoint !== found);
    await this.#remove(found);
  }

  // The manifest first: a state without one is removed at the next start, a manifest without its state is damage.
  async #remove({ index, path }: Checkpoint): Promise<void> {
    await this.#disk.unlink(`${this.#directory}/${manifestName(index)}`);
    await this.#disk.syncDirectory(this.#directory);
    await this.#disk.unlink(path);
  }

  async #count(checkpoint: Checkpoint): Promise<Checkpoint> {
    const { index, term, digest, bytes, xxh64, configuration, received } = checkpoint;
    await this.#disk.syncDirectory(this.#directory);
    await writeCheckedJson(this.#disk, this.#directory, manifestName(index), {
      index,
      term,
      digest,
      bytes,
      xxh64,
      ...(configuration === undefined ? {} : { configuration: configurationToJson(configuration) }),
      ...(received === true ? { received } : {}),
    });
    this.#known = [...this.#known, checkpoint].sort((a, b) => a.index - b.index);
    return checkpoint;
  }

  /** Removes all but the newest two. Returns the index behind which the log may be cut: the older kept one's. */
  async prune(): Promise<number> {
    while (this.#known.length > keptCheckpoints) {
      const [oldest, ...rest] = this.#known as [Checkpoint, ...Checkpoint[]];
      this.#known = rest;
      await this.#remove(oldest);
    }
    return this.#known.length < keptCheckpoints ? 0 : (this.#known[0]?.index ?? 0);
  }

  /** Throws `corrupt` unless the file is what its manifest says. */
  async verify(checkpoint: Checkpoint): Promise<void> {
    await verifyCheckpoint(this.#disk, checkpoint);
  }
}

export async function verifyCheckpoint(disk: Disk, checkpoint: Checkpoint): Promise<void> {
  const { path } = checkpoint;
  let found: { bytes: number; xxh64: string };
  try {
    found = await sumFile(disk, path);
  } catch (error) {
    if ((error as { code?: unknown }).code !== "ENOENT") throw error;
    throw damaged(path, "the file is missing, its manifest is there");
  }
  if (found.bytes !== checkpoint.bytes)
    throw damaged(path, `it has ${found.bytes} bytes, its manifest says ${checkpoint.bytes}`);
  if (found.xxh64 !== checkpoint.xxh64)
    throw damaged(path, `its xxh64 is ${found.xxh64}, its manifest says ${checkpoint.xxh64}`);
}

/** `checkpoint-0000000000000042.json` → 42. */
export function parseManifestName(name: string): number | undefined {
  const match = /^checkpoint-([0-9]{16})\.json$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}

export async function readManifest(disk: Disk, directory: string, name: string, named: number): Promise<Checkpoint> {
  const path = `${directory}/${name}`;
  const manifest = (await readCheckedJson(disk, path)) ?? {};
  const fields = manifest as Partial<Record<keyof Checkpoint, unknown>>;
  const { index, term, digest, bytes, xxh64, received } = fields;
  if (
    index !== named ||
    typeof term !== "number" ||
    typeof digest !== "string" ||
    typeof bytes !== "number" ||
    typeof xxh64 !== "string"
  ) {
    throw damaged(path, `it is not the manifest of a checkpoint at index ${named}`);
  }
  const about = { index: named, term, digest, bytes, xxh64, path: `${directory}/${stateName(named)}` };
  if (fields.configuration === undefined) return about;
  try {
    return { ...about, configuration: configurationFromJson(fields.configuration), received: received === true };
  } catch {
    throw damaged(path, "its membership is no membership");
  }
}

function stateName(index: number): string {
  return `checkpoint-${String(index).padStart(16, "0")}`;
}

function manifestName(index: number): string {
  return `${stateName(index)}.json`;
}

export async function sumFile(disk: Disk, path: string): Promise<{ bytes: number; xxh64: string }> {
  const file = await disk.open(path, "read");
  try {
    const hash = new Xxh64();
    const buffer = new Uint8Array(MiB);
    let bytes = 0;
    for (;;) {
      const count = await file.read(buffer, bytes);
      if (count === 0) return { bytes, xxh64: hash.hex() };
      hash.update(buffer.subarray(0, count));
      bytes += count;
    }
  } finally {
    await file.close();
  }
}

function damaged(path: string, message: string): HeadpondError {
  return new HeadpondError("corrupt", `${path}: offset 0: damaged checkpoint: ${message}`, {
    details: { file: path, offset: 0 },
  });
}
