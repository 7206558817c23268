/**
 * What a block on its way in takes up: a slot of its kind of source, and a buffer. Both are taken when bytes are about to come and kept over
 * several attempts, so that the bytes of a broken one count in the next. Ends in one of two ways: `store`, or `giveUp`.
 */

import type { Fill } from "./fill.ts";
import type { FillBuffers } from "./fill-buffers.ts";
import type { Slots } from "./slots.ts";

export type ReceptionDependencies = {
  readonly buffers: FillBuffers;
  /** Writes the checked block to the disk. */
  readonly commit: (fill: Fill, buffer: Buffer, checksum: Uint8Array) => Promise<void>;
  /** Whether this one may be written while its slot takes the next block; if so, counts until the function is called that comes back. */
  readonly writeBeside: () => (() => void) | undefined;
};

export class Reception {
  readonly fill: Fill;
  readonly #deps: ReceptionDependencies;
  readonly #signal: AbortSignal;
  readonly #slots = new Map<Slots, () => void>();
  #buffer: Buffer | undefined;

  constructor(fill: Fill, dependencies: ReceptionDependencies, signal: AbortSignal) {
    this.fill = fill;
    this.#deps = dependencies;
    this.#signal = signal;
  }

  /** Waits for a slot of this kind, unless it has one. */
  async takeSlot(slots: Slots): Promise<void> {
    if (this.#slots.has(slots)) return;
    this.#slots.set(slots, await slots.take(() => this.fill.urgency, this.#signal));
  }

  /** Waits for a buffer, unless it has one. */
  async takeBuffer(): Promise<void> {
    if (this.#buffer !== undefined) return;
    this.#buffer = await this.#deps.buffers.take(this.#signal);
    this.fill.begin(this.#buffer);
  }

  /** The block is whole and right: readers may have it. Resolves when it is present in the cache. */
  async store(checksum: Uint8Array): Promise<void> {
    const { fill } = this;
    const buffer = this.#buffer as Buffer;
    fill.setVerified(checksum);
    const written = this.#deps.writeBeside();
    if (written !== undefined) this.#giveSlots();
    try {
      await this.#deps.commit(fill, buffer, checksum);
      fill.setStored();
      this.#buffer = undefined;
      this.#deps.buffers.keepWarm(fill, buffer);
    } finally {
      written?.();
      this.#giveSlots();
    }
  }

  /** Whatever is left goes back. */
  giveUp(): void {
    const buffer = this.#buffer;
    this.#buffer = undefined;
    if (buffer !== undefined) {
      this.fill.detach();
      this.#deps.buffers.give(buffer);
    }
    this.#giveSlots();
  }

  #giveSlots(): void {
    for (const give of this.#slots.values()) give();
    this.#slots.clear();
  }
}
