/** The content of one file in memory: pages that were never written take no room and read as zeros. */

export const sparsePageBytes = 4096;

export class SparseBytes {
  readonly #pages = new Map<number, Uint8Array>();
  #sizeBytes = 0;

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get allocatedBytes(): number {
    return this.#pages.size * sparsePageBytes;
  }

  /** Copies up to `buffer.length` bytes from `position`; returns how many there were. */
  read(buffer: Uint8Array, position: number): number {
    const count = Math.max(0, Math.min(buffer.length, this.#sizeBytes - position));
    for (const { page, from, to, offset } of pieces(position, count)) {
      const bytes = this.#pages.get(page);
      if (bytes === undefined) buffer.fill(0, offset, offset + to - from);
      else buffer.set(bytes.subarray(from, to), offset);
    }
    return count;
  }

  write(bytes: Uint8Array, position: number): void {
    for (const { page, from, to, offset } of pieces(position, bytes.length)) {
      this.#allocate(page).set(bytes.subarray(offset, offset + to - from), from);
    }
    this.#sizeBytes = Math.max(this.#sizeBytes, position + bytes.length);
  }

  truncate(sizeBytes: number): void {
    const keptPages = Math.ceil(sizeBytes / sparsePageBytes);
    if (sizeBytes < this.#sizeBytes) {
      for (const page of this.#pages.keys()) if (page >= keptPages) this.#pages.delete(page);
      this.#pages.get(keptPages - 1)?.fill(0, sizeBytes - (keptPages - 1) * sparsePageBytes);
    }
    this.#sizeBytes = sizeBytes;
  }

  /** How much more room a write would take. */
  growthBytes(position: number, lengthBytes: number): number {
    let pages = 0;
    for (const { page } of pieces(position, lengthBytes)) if (!this.#pages.has(page)) pages++;
    return pages * sparsePageBytes;
  }

  copy(): SparseBytes {
    const result = new SparseBytes();
    for (const [page, bytes] of this.#pages) result.#pages.set(page, bytes.slice());
    result.#sizeBytes = this.#sizeBytes;
    return result;
  }

  #allocate(page: number): Uint8Array {
    let bytes = this.#pages.get(page);
    if (bytes === undefined) {
      bytes = new Uint8Array(sparsePageBytes);
      this.#pages.set(page, bytes);
    }
    return bytes;
  }
}

type Piece = { readonly page: number; readonly from: number; readonly to: number; readonly offset: number };

/** A range of the file, cut at page borders; `offset` is the piece's place in the caller's buffer. */
function* pieces(position: number, lengthBytes: number): Generator<Piece> {
  for (let offset = 0; offset < lengthBytes; ) {
    const at = position + offset;
    const page = Math.floor(at / sparsePageBytes);
    const from = at - page * sparsePageBytes;
    const to = Math.min(sparsePageBytes, from + lengthBytes - offset);
    yield { page, from, to, offset };
    offset += to - from;
  }
}
