/** A page of inodes as the store has it (docs/formats/namespace.md): a bit per slot that is present, then lengths and rows. */

export const inodesPerPage = 8;
/** Bytes before a row in a page: its length. */
export const rowHeaderBytes = 3;

/** Where the row is that `findInPage` found last; an object per call would cost more than the search. */
export let rowStart = 0;
export let rowEnd = 0;

/** Whether the page has a row in this slot. Lengths are believed: the row may end beyond the page, if that is damaged. */
export function findInPage(page: Buffer, slot: number): boolean {
  const bitmap = page[0] as number;
  if ((bitmap & (1 << slot)) === 0) return false;
  let at = 1;
  for (let i = 0; i < slot; i++) if ((bitmap & (1 << i)) !== 0) at += rowHeaderBytes + lengthAt(page, at);
  rowStart = at + rowHeaderBytes;
  rowEnd = rowStart + lengthAt(page, at);
  return true;
}

/** The length of the row whose header is at `at`. */
export function lengthAt(page: Buffer, at: number): number {
  return ((page[at] as number) << 16) | ((page[at + 1] as number) << 8) | (page[at + 2] as number);
}
