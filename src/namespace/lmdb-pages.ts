/**
 * What is known here of LMDB's file (0.9.90 as lmdb-js builds it): its two meta pages, and the tree of free pages. Pages that
 * no reader can reach need not be in a backup, and after a busy hour they are half of the file.
 *
 * Only ever reads. What it does not understand it reports as such: then every page counts as used.
 */

export type Meta = {
  readonly pageSizeBytes: number;
  readonly transaction: bigint;
  /** Pages of the file; the last ones may be missing from it when they are free. */
  readonly pageCount: number;
  /** Root of the tree of free pages; undefined: there are none. */
  readonly freeRoot: number | undefined;
};

export const metaBytes = 160;
/** Header of a page: its number, the transaction that wrote it, padding, flags, and two bounds or a count of pages. */
const headerBytes = 24;
const nodeHeaderBytes = 8;
const branchFlag = 0x01;
const leafFlag = 0x02;
const overflowFlag = 0x04;
const bigDataFlag = 0x01;
const noPage = 0xffffffffffffffffn;
const depthMax = 32;

/** Offsets as in struct MDB_meta, behind the header of the page. Undefined: not LMDB's magic number. */
export function readMeta(page: Buffer): Meta | undefined {
  if (page.readUInt32LE(24) !== 0xbeefc0de) return undefined;
  const root = page.readBigUInt64LE(88);
  return {
    pageSizeBytes: page.readUInt32LE(48),
    transaction: page.readBigUInt64LE(152),
    pageCount: Number(page.readBigUInt64LE(144)) + 1,
    freeRoot: root === noPage ? undefined : Number(root),
  };
}

export type ReadPages = (buffer: Uint8Array, position: number) => Promise<number>;

/**
 * The free pages of the commit that `meta` is of, which must be held by a read transaction. Undefined: something is not as
 * expected.
 */
export async function readFreePages(read: ReadPages, meta: Meta): Promise<PageSet | undefined> {
  const free = new PageSet(meta.pageCount);
  if (meta.freeRoot === undefined) return free;
  const isSound = await walk(meta.freeRoot, 0);
  return isSound ? free : undefined;

  async function walk(pageNumber: number, depth: number): Promise<boolean> {
    const page = await readPages(pageNumber, meta.pageSizeBytes);
    if (page === undefined || depth > depthMax) return false;
    const flags = page.readUInt16LE(18);
    const isLeaf = (flags & leafFlag) !== 0;
    if (isLeaf === ((flags & branchFlag) !== 0)) return false;
    const count = page.readUInt16LE(20) >> 1;
    for (let i = 0; i < count; i++) {
      const at = headerBytes + page.readUInt16LE(headerBytes + 2 * i);
      if (at + nodeHeaderBytes > page.length) return false;
      const low = page.readUInt32LE(at);
      const nodeFlags = page.readUInt16LE(at + 4);
      const dataAt = at + nodeHeaderBytes + page.readUInt16LE(at + 6);
      if (!isLeaf) {
        if (!(await walk(low + nodeFlags * 2 ** 32, depth + 1))) return false;
        continue;
      }
      const record =
        (nodeFlags & bigDataFlag) === 0 ? page.subarray(dataAt, dataAt + low) : await big(page, dataAt, low);
      if (record === undefined || record.length < low || !take(record)) return false;
    }
    return true;
  }

  async function big(page: Buffer, at: number, lengthBytes: number): Promise<Buffer | undefined> {
    const first = await readPages(Number(page.readBigUInt64LE(at)), headerBytes + lengthBytes);
    if (first === undefined || (first.readUInt16LE(18) & overflowFlag) === 0) return undefined;
    return first.subarray(headerBytes);
  }

  /** A count, and so many numbers: a page; or minus a length, then the first page of so many; 0 is a gap. */
  function take(record: Buffer): boolean {
    const count = signed(record, 0);
    if (count < 0 || 8 * (count + 1) > record.length) return false;
    for (let i = 1; i <= count; i++) {
      let number = signed(record, i);
      let length = 1;
      if (number < 0) {
        length = -number;
        i++;
        if (i > count) return false;
        number = signed(record, i);
      }
      if (number === 0 && length === 1) continue;
      if (number < 2 || number + length > meta.pageCount) return false;
      for (let page = number; page < number + length; page++) if (!free.add(page)) return false;
    }
    return true;
  }

  async function readPages(number: number, lengthBytes: number): Promise<Buffer | undefined> {
    const { pageSizeBytes, pageCount } = meta;
    if (!(number >= 2 && number + Math.ceil(lengthBytes / pageSizeBytes) <= pageCount)) return undefined;
    const buffer = Buffer.alloc(lengthBytes);
    return (await read(buffer, number * pageSizeBytes)) === lengthBytes ? buffer : undefined;
  }
}

function signed(record: Buffer, index: number): number {
  return record.readInt32LE(8 * index + 4) * 2 ** 32 + record.readUInt32LE(8 * index);
}

/** A set of page numbers, a bit each. */
export class PageSet {
  readonly #bits: Uint8Array;
  readonly pageCount: number;
  size = 0;

  constructor(pageCount: number) {
    this.pageCount = pageCount;
    this.#bits = new Uint8Array(Math.ceil(pageCount / 8));
  }

  has(page: number): boolean {
    return ((this.#bits[page >> 3] as number) & (1 << (page & 7))) !== 0;
  }

  /** False: it was there already. */
  add(page: number): boolean {
    if (this.has(page)) return false;
    this.#bits[page >> 3] = (this.#bits[page >> 3] as number) | (1 << (page & 7));
    this.size++;
    return true;
  }

  /** Runs of pages that are not in the set, as first page and count, ascending; gaps below `gapPagesMin` are not worth one. */
  *complementRuns(gapPagesMin: number): Generator<readonly [first: number, count: number]> {
    let first = 0;
    let end = 0;
    for (let page = 0; page < this.pageCount; page++) {
      if (this.has(page)) continue;
      if (page - end >= gapPagesMin) {
        if (end > first) yield [first, end - first];
        first = page;
      }
      end = page + 1;
    }
    if (end > first) yield [first, end - first];
  }
}
