/**
 * The running digest of the state: the sum, modulo 2^32 in two lanes, of one hash per row. A sum does not know an order,
 * so masters that flush and restart at different moments still agree; it is kept up by taking the old row's hash off and
 * adding the new one's. It finds divergence through defects and bit rot; it does not resist an adversary.
 */

/** Result lanes of the last call: an object per call would cost more than the hashing. */
export let hashLow = 0;
export let hashHigh = 0;

/** Hashes `buffer[start, end)`. Each step multiplies by an odd constant and folds high bits down; each lane has its own. */
export function hashBytes(buffer: Uint8Array, start: number, end: number, seed: number): void {
  let a = (seed ^ 0x2545f491) | 0;
  let b = (Math.floor(seed / 2 ** 32) + Math.imul(seed | 0, 0x1b873593) + end - start) | 0;
  let at = start;
  for (; at + 4 <= end; at += 4) {
    const word =
      (buffer[at] as number) |
      ((buffer[at + 1] as number) << 8) |
      ((buffer[at + 2] as number) << 16) |
      ((buffer[at + 3] as number) << 24);
    a = Math.imul(a ^ word, 0x9e3779b1);
    a ^= a >>> 15;
    b = Math.imul(b + word, 0x7feb352d);
    b ^= b >>> 13;
  }
  let rest = 0;
  for (; at < end; at++) rest = (rest << 8) | (buffer[at] as number);
  a = Math.imul(a ^ rest, 0x846ca68b);
  a = Math.imul(a ^ (a >>> 16) ^ b, 0x7feb352d);
  hashLow = a ^ (a >>> 15);
  b = Math.imul(b + rest, 0x9e3779b1);
  b = Math.imul(b ^ (b >>> 16) ^ a, 0x846ca68b);
  hashHigh = b ^ (b >>> 16);
}

/** Of a row with a key of its own: the key's hash seeds the value's, so no two rows can trade bytes unseen. */
export function hashRow(key: Uint8Array, value: Uint8Array): void {
  hashBytes(key, 0, key.length, value.length);
  hashBytes(value, 0, value.length, (hashLow >>> 0) + (hashHigh >>> 11) * 2 ** 32);
}

export class Digest {
  #low = 0;
  #high = 0;

  add(low: number, high: number): void {
    this.#low = (this.#low + low) | 0;
    this.#high = (this.#high + high) | 0;
  }

  subtract(low: number, high: number): void {
    this.#low = (this.#low - low) | 0;
    this.#high = (this.#high - high) | 0;
  }

  toString(): string {
    return hexadecimal(this.#high) + hexadecimal(this.#low);
  }

  static parse(text: string): Digest {
    const digest = new Digest();
    digest.#high = Number.parseInt(text.slice(0, 8), 16) | 0;
    digest.#low = Number.parseInt(text.slice(8), 16) | 0;
    return digest;
  }
}

function hexadecimal(lane: number): string {
  return (lane >>> 0).toString(16).padStart(8, "0");
}
