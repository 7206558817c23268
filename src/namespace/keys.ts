/** Keys of small rows: a prefix byte for the kind, then numbers of 6 bytes, big end first (docs/formats/namespace.md). */

export const mountPrefix = Buffer.from("M");
export const intentPrefix = Buffer.from("I");
export const jobPrefix = Buffer.from("J");
export const jobProgressPrefix = Buffer.from("P");
export const revisionPrefix = Buffer.from("V");
/** File versions that a kept revision names. */
export const keptVersionPrefix = Buffer.from("K");
export const ttlPrefix = Buffer.from("T");
/** Roots of removed trees that are not reclaimed yet. */
export const detachedPrefix = Buffer.from("D");
export const settingPrefix = Buffer.from("C");
export const requestIdPrefix = Buffer.from("Q");
/** Request ids by time. */
export const requestTimePrefix = Buffer.from("q");

export function rowKey(prefix: Buffer, ...numbers: readonly number[]): Buffer {
  const key = Buffer.allocUnsafe(1 + 6 * numbers.length);
  key[0] = prefix[0] as number;
  for (let i = 0; i < numbers.length; i++) key.writeUIntBE(numbers[i] as number, 1 + 6 * i, 6);
  return key;
}

export function textKey(prefix: Buffer, text: string): Buffer {
  return Buffer.concat([prefix, Buffer.from(text)]);
}

/** The `position`th number of a key. */
export function keyNumber(key: Buffer, position: number): number {
  return key.readUIntBE(1 + 6 * position, 6);
}
