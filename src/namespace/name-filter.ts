/**
 * Says of most names that a directory surely does not hold them (a Bloom filter): a create in a directory that was made since the
 * start needs no look into the store to know that its name is free. Layers are added as names come, each eight times as big;
 * when even the last one is full, all is forgotten, and directories of before are looked up in the store again.
 */

import type { Inode } from "./inode.ts";

/** All bits of a name lie in one block, a line of the processor's cache: what a look costs is waiting for memory. */
const blockWords = 16;
const bitsPerName = 12;
const layerBytes = [128 * 1024, 1024 * 1024, 8 * 1024 * 1024, 32 * 1024 * 1024] as const;

export class NameFilter {
  #layers: Int32Array[] = [];
  #room = 0;
  #epoch = 1;

  /** The directory is empty: from now on all its names are in the filter. */
  begin(directory: Inode): void {
    directory.filterEpoch = this.#epoch;
  }

  /** `hash` is `hashName` of the two, here and below. */
  add(directory: Inode, hash: number): void {
    if (directory.filterEpoch !== this.#epoch) return;
    if (this.#room === 0 && !this.#grow()) return;
    this.#room--;
    const layer = this.#layers[this.#layers.length - 1] as Int32Array;
    const block = blockOf(layer, hash);
    let bits = Math.imul(hash, 0x9e3779b1);
    bits ^= bits >>> 15;
    setBit(layer, block, bits);
    setBit(layer, block, bits >>> 9);
    setBit(layer, block, bits >>> 18);
    setBit(layer, block, hash >>> 23);
  }

  /** True: the directory does not hold the name. False: it may. */
  isAbsent(directory: Inode, hash: number): boolean {
    if (directory.filterEpoch !== this.#epoch) return false;
    let bits = Math.imul(hash, 0x9e3779b1);
    bits ^= bits >>> 15;
    for (const layer of this.#layers) {
      const block = blockOf(layer, hash);
      if (
        hasBit(layer, block, bits) &&
        hasBit(layer, block, bits >>> 9) &&
        hasBit(layer, block, bits >>> 18) &&
        hasBit(layer, block, hash >>> 23)
      ) {
        return false;
      }
    }
    return true;
  }

  #grow(): boolean {
    const bytes = layerBytes[this.#layers.length];
    if (bytes === undefined) {
      this.#epoch++;
      this.#layers = [];
      this.#room = 0;
      return false;
    }
    this.#layers.push(new Int32Array(bytes / 4));
    this.#room = Math.floor((bytes * 8) / bitsPerName);
    return true;
  }
}

/** Its first word. */
function blockOf(layer: Int32Array, hash: number): number {
  return Math.imul(hash, blockWords) & (layer.length - 1) & -blockWords;
}

/** `bit`: its low nine bits say which of the block's 512 it is. */
function setBit(layer: Int32Array, block: number, bit: number): void {
  const at = block + ((bit >>> 5) & (blockWords - 1));
  layer[at] = (layer[at] as number) | (1 << (bit & 31));
}

function hasBit(layer: Int32Array, block: number, bit: number): boolean {
  return ((layer[block + ((bit >>> 5) & (blockWords - 1))] as number) & (1 << (bit & 31))) !== 0;
}

/** 32 bits, signed. */
export function hashName(directoryId: number, name: string): number {
  let hash = Math.imul(directoryId | 0, 0x85ebca6b) ^ 0x27d4eb2f;
  for (let i = 0; i < name.length; i++) {
    hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
    hash ^= hash >>> 15;
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x7feb352d);
  return hash ^ (hash >>> 15);
}
