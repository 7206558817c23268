/** Makes the first segment of a new log (docs/formats/wal.md): filled and durable before it gets its name. */

import type { ClusterId } from "../base/ids.ts";
import { MiB } from "../base/units.ts";
import type { Disk } from "../io/disk.ts";
import { encodeSegmentHeader, segmentHeaderBytes, segmentName } from "./segment.ts";

export type NewLog = {
  readonly disk: Disk;
  /** Of the segments; empty. */
  readonly directory: string;
  readonly clusterId: ClusterId;
  readonly segmentBytes: number;
};

export async function createFirstSegment(log: NewLog, firstIndex: number, previousTerm: number): Promise<void> {
  const { disk, directory, clusterId, segmentBytes } = log;
  const hardState = { term: previousTerm, vote: new Uint8Array(0) };
  const place = { segmentBytes, sequence: 1, firstIndex, previousTerm, seed: 0, previousEnd: 0 };
  const path = `${directory}/${segmentName(1, firstIndex)}`;
  const file = await disk.open(`${path}.new`, "open-or-create");
  try {
    await file.write(encodeSegmentHeader({ ...place, fresh: true, hardState, clusterId, configurationIndex: 0 }), 0);
    const zeros = new Uint8Array(Math.min(4 * MiB, segmentBytes - segmentHeaderBytes));
    for (let at = segmentHeaderBytes; at < segmentBytes; at += zeros.length) {
      await file.write(zeros.subarray(0, Math.min(zeros.length, segmentBytes - at)), at);
    }
    await file.datasync();
  } finally {
    await file.close();
  }
  await disk.rename(`${path}.new`, path);
  await disk.syncDirectory(directory);
}
