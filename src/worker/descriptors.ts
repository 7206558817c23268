/**
 * What a file version id means: known from the cache, from orders of a master, or by asking one. While no master can be
 * reached, a peer's word is taken for versions that are not known otherwise.
 */

import { Compile } from "typebox/compile";
import { HeadpondError, isHeadpondError } from "../base/errors.ts";
import { FileDescriptor } from "../base/file.ts";
import type { FileVersionId } from "../base/ids.ts";
import type { BlockCache } from "./block-cache.ts";

const knownMax = 20_000;
const descriptorBytesMax = 16 * 1024;
const checkDescriptor = Compile(FileDescriptor);

export class Descriptors {
  readonly #cache: BlockCache;
  readonly #describe: (id: FileVersionId) => Promise<FileDescriptor>;
  readonly #known = new Map<FileVersionId, FileDescriptor>();
  readonly #asking = new Map<FileVersionId, Promise<FileDescriptor>>();

  /** `describe` asks the masters: throws `not-found`, or `unavailable` when none answers. */
  constructor(options: {
    readonly cache: BlockCache;
    readonly describe: (id: FileVersionId) => Promise<FileDescriptor>;
  }) {
    this.#cache = options.cache;
    this.#describe = options.describe;
  }

  learn(descriptor: FileDescriptor): void {
    this.#known.delete(descriptor.id);
    this.#known.set(descriptor.id, descriptor);
    const oldest = this.#known.keys().next().value;
    if (this.#known.size > knownMax && oldest !== undefined) this.#known.delete(oldest);
  }

  /** Version ids of another cluster mean nothing any more. */
  forgetAll(): void {
    this.#known.clear();
  }

  /** Throws `not-found`, or `unavailable` when it is not known here and no master answers. */
  async find(id: FileVersionId, claimed?: string): Promise<FileDescriptor> {
    const known = this.#cache.get(id)?.descriptor ?? this.#known.get(id);
    if (known !== undefined) return known;
    try {
      return await this.#ask(id);
    } catch (error) {
      if (claimed === undefined || !isHeadpondError(error, "unavailable", "timeout", "not-leader")) throw error;
      return parseClaim(id, claimed);
    }
  }

  #ask(id: FileVersionId): Promise<FileDescriptor> {
    const running = this.#asking.get(id);
    if (running !== undefined) return running;
    const asking = this.#describe(id)
      .then((descriptor) => {
        this.learn(descriptor);
        return descriptor;
      })
      .finally(() => this.#asking.delete(id));
    this.#asking.set(id, asking);
    return asking;
  }
}

function parseClaim(id: FileVersionId, claimed: string): FileDescriptor {
  try {
    if (claimed.length > descriptorBytesMax) throw new Error(`it has ${claimed.length} characters`);
    const descriptor: unknown = JSON.parse(Buffer.from(claimed, "base64url").toString("utf8"));
    if (!checkDescriptor.Check(descriptor)) throw new Error("it has the wrong form");
    if (descriptor.id !== id) throw new Error(`it describes ${descriptor.id}`);
    return descriptor;
  } catch (error) {
    throw new HeadpondError("invalid", `the descriptor that came with ${id} cannot be used`, { cause: error });
  }
}
