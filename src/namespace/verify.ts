/**
 * Checks a store at rest: every row can be read, the sums in the header are those of the rows, names and inodes are each other's
 * inverse, counts are right. Reads everything, so it is for tools and tests, not for a serving master.
 */

import { isHeadpondError } from "../base/errors.ts";
import type { InodeId } from "../base/ids.ts";
import { ByteReader } from "./bytes.ts";
import { Digest, hashBytes, hashHigh, hashLow, hashRow } from "./hash.ts";
import { type Inode, readInode } from "./inode.ts";
import { inodesPerPage, rowHeaderBytes } from "./inode-page.ts";
import { detachedPrefix } from "./keys.ts";
import { resultPrefix, sessionPrefix } from "./session-table.ts";
import { type Header, parseHeader } from "./state.ts";
import { inodesTable, namesTable, rowsTable, type Store } from "./store.ts";

/** Problems named are at most this many: one damaged page can make thousands. */
const problemsMax = 100;

/** What is wrong, in words; empty when all is well. */
export function verifyStore(store: Store): string[] {
  const problems: string[] = [];
  const say = (problem: string): void => {
    if (problems.length < problemsMax) problems.push(problem);
  };
  try {
    verify(store, say);
  } catch (error) {
    if (!isHeadpondError(error)) throw error;
    say(error.message);
  }
  return problems;
}

function verify(store: Store, say: (problem: string) => void): void {
  let header: Header | undefined;
  const rows = new Digest();
  const sessions = new Digest();
  const detached = new Set<number>();
  store.scan(rowsTable, Buffer.of(0), (key, value) => {
    const prefix = key[0] as number;
    if (prefix === 0) header = parseHeader(value);
    // The store's own rows.
    if (prefix < 0x20) return true;
    if (prefix === detachedPrefix[0]) detached.add(key.readUIntBE(1, 6));
    hashRow(key, value);
    (prefix === sessionPrefix || prefix === resultPrefix ? sessions : rows).add(hashLow, hashHigh);
    return true;
  });
  if (header === undefined) {
    // A process that died before its first flush leaves no row at all.
    store.scan(inodesTable, Buffer.of(0), () => {
      say("the state has inodes, but no header row");
      return false;
    });
    return;
  }
  const { inodes, digest, files, sizeBytes } = readInodes(store, say);
  const sums = { inodes: digest.toString(), rows: rows.toString(), sessions: sessions.toString() };
  for (const part of ["inodes", "rows", "sessions"] as const) {
    if (sums[part] !== header.digests[part])
      say(`the ${part} have digest ${sums[part]}, the header says ${header.digests[part]}`);
  }
  verifyNames(store, inodes, detached, say);
  const directories = inodes.size - files;
  const counted = `${files} files, ${directories} directories, ${sizeBytes} bytes`;
  const said = `${header.fileCount} files, ${header.directoryCount} directories, ${header.sizeBytes} bytes`;
  if (counted !== said) say(`there are ${counted}, the header says ${said}`);
}

function readInodes(store: Store, say: (problem: string) => void) {
  const inodes = new Map<number, Inode>();
  const digest = new Digest();
  let files = 0;
  let sizeBytes = 0;
  store.scan(inodesTable, Buffer.of(0), (key, value) => {
    const page = key.readUIntBE(0, 6);
    let at = 1;
    for (let slot = 0; slot < inodesPerPage; slot++) {
      if (((value[0] as number) & (1 << slot)) === 0) continue;
      const id = (page * inodesPerPage + slot) as InodeId;
      const start = at + rowHeaderBytes;
      at = start + value.readUIntBE(at, rowHeaderBytes);
      if (at > value.length) {
        say(`the page of inode ${id} is cut short`);
        return true;
      }
      const inode = readInode(new ByteReader(`the row of inode ${id}`, value.subarray(start, at)), id);
      hashBytes(value, start, at, id);
      digest.add(hashLow, hashHigh);
      inodes.set(id, inode);
      if (!inode.isDirectory) files++;
      sizeBytes += inode.sizeBytes;
    }
    if (at !== value.length) say(`page ${page} of inodes has ${value.length - at} bytes too many`);
    return true;
  });
  return { inodes, digest, files, sizeBytes };
}

function verifyNames(
  store: Store,
  inodes: ReadonlyMap<number, Inode>,
  detached: ReadonlySet<number>,
  say: (problem: string) => void,
): void {
  const children = new Map<number, number>();
  let named = 0;
  store.scan(namesTable, Buffer.of(0), (key, value) => {
    const directoryId = key.readUIntBE(0, 6);
    const name = key.toString("utf8", 6);
    const id = value.readUIntBE(0, 6);
    const inode = inodes.get(id);
    named++;
    children.set(directoryId, (children.get(directoryId) ?? 0) + 1);
    if (inode === undefined)
      say(`name ${JSON.stringify(name)} in directory ${directoryId} points to inode ${id}, which is missing`);
    else if (inode.parentId !== directoryId || inode.name !== name) {
      say(
        `inode ${id} says it is ${JSON.stringify(inode.name)} in ${inode.parentId}, but ${JSON.stringify(name)} in ${directoryId} points to it`,
      );
    }
    return true;
  });
  let roots = 0;
  for (const inode of inodes.values()) {
    if (inode.parentId === 0) roots++;
    if (inode.parentId === 0 && inode.id !== 1 && !detached.has(inode.id)) say(`inode ${inode.id} belongs nowhere`);
    const counted = children.get(inode.id) ?? 0;
    if (counted !== inode.childCount)
      say(`directory ${inode.id} has ${counted} children, its row says ${inode.childCount}`);
  }
  if (named + roots !== inodes.size) say(`${inodes.size - roots} inodes should have a name, ${named} names exist`);
}
