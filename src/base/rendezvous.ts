/**
 * Rendezvous hashing (Thaler and Ravishankar 1998): every node ranks all workers for a block by the same hash, so all
 * agree on its owner without talking, and a worker that leaves moves only its own blocks.
 */

import type { BlockIndex, FileVersionId, WorkerId } from "./ids.ts";

/** `workers` from the best owner of the block to the worst. Order of the input does not matter. */
export function ownerOrder(file: FileVersionId, block: BlockIndex, workers: readonly WorkerId[]): readonly WorkerId[] {
  const blockHash = hashText(`${file}/${block}`, 0);
  return workers
    .map((worker) => ({ worker, score: hashText(worker, blockHash) }))
    .sort((a, b) => b.score - a.score || (a.worker < b.worker ? -1 : 1))
    .map(({ worker }) => worker);
}

/** FNV-1a over UTF-16 units, then the finaliser of murmur3: cheap, and good enough to spread. */
export function hashText(text: string, seed: number): number {
  let hash = (0x811c9dc5 ^ seed) >>> 0;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
