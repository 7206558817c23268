/** CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), eight bytes a step by the "slicing" tables of Kounavis and Berry 2005. */

const tables: readonly Uint32Array[] = makeTables();

function makeTables(): Uint32Array[] {
  const result = Array.from({ length: 8 }, () => new Uint32Array(256));
  const first = result[0] as Uint32Array;
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    first[byte] = crc >>> 0;
  }
  for (let table = 1; table < 8; table++) {
    const previous = result[table - 1] as Uint32Array;
    const current = result[table] as Uint32Array;
    for (let byte = 0; byte < 256; byte++) {
      const crc = previous[byte] as number;
      current[byte] = ((crc >>> 8) ^ (first[crc & 0xff] as number)) >>> 0;
    }
  }
  return result;
}

export class Crc32c {
  #crc = 0xffffffff;

  update(bytes: Uint8Array): void {
    const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as unknown as Readonly<Record<number, Uint32Array>> &
      [Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array];
    let crc = this.#crc;
    let at = 0;
    const last = bytes.length - 8;
    for (; at <= last; at += 8) {
      crc ^=
        byteAt(bytes, at) |
        (byteAt(bytes, at + 1) << 8) |
        (byteAt(bytes, at + 2) << 16) |
        (byteAt(bytes, at + 3) << 24);
      crc =
        entry(t7, crc & 0xff) ^
        entry(t6, (crc >>> 8) & 0xff) ^
        entry(t5, (crc >>> 16) & 0xff) ^
        entry(t4, crc >>> 24) ^
        entry(t3, byteAt(bytes, at + 4)) ^
        entry(t2, byteAt(bytes, at + 5)) ^
        entry(t1, byteAt(bytes, at + 6)) ^
        entry(t0, byteAt(bytes, at + 7));
    }
    for (; at < bytes.length; at++) crc = entry(t0, (crc ^ byteAt(bytes, at)) & 0xff) ^ (crc >>> 8);
    this.#crc = crc;
  }

  /** 8 hexadecimal digits; more may follow. */
  hex(): string {
    return ((this.#crc ^ 0xffffffff) >>> 0).toString(16).padStart(8, "0");
  }
}

function byteAt(bytes: Uint8Array, index: number): number {
  return bytes[index] as number;
}

function entry(table: Uint32Array, index: number): number {
  return table[index] as number;
}
