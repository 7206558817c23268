/** One measurement of distribution: what is laid out, who moves the bytes, and what came out. */

import { MiB } from "../../src/base/units.ts";

export type ShapedSystem = "headpond" | "direct" | "bittorrent";

export type ShapedCase = {
  readonly system: ShapedSystem;
  readonly nodes: number;
  readonly nodeBytesPerSecond: number;
  readonly originBytesPerSecond: number;
  readonly fileBytes: number;
  /** The last node's link, if it is another one. */
  readonly slowBytesPerSecond?: number;
  /** Nodes are divided among so many; the origin is in the first. */
  readonly regions?: number;
  readonly regionLinkBytesPerSecond?: number;
  /** One node is killed when half of the bytes have left the origin, and comes back two seconds later. */
  readonly kill?: boolean;
  /** So many readers on the one node's host ask for the file at once; nothing is loaded. */
  readonly readers?: number;
};

export type ShapedResult = {
  /** From the start until a node had everything, in the order of the nodes; null: it was killed, or it is the slow one. */
  readonly seconds: readonly (number | null)[];
  /** The payload that the origin says it sent. */
  readonly originBytes: number;
  /** What passed the origin's link, with headers and acknowledgements' answers. */
  readonly originLinkBytes: number;
  /** Over the links between regions, both directions. */
  readonly crossRegionBytes: number;
  /** CPU of each node's process in the timed part; empty where nobody counted. */
  readonly cpuSeconds: readonly number[];
  /** Share of the machine's CPU time that was not idle in the timed part. */
  readonly busy: number;
  /** Copies whose SHA-256 is not the origin's. */
  readonly wrong: readonly string[];
};

/** The least time in which the nodes that count can have the file. */
export function boundSeconds(given: ShapedCase): number {
  const { nodes, fileBytes, originBytesPerSecond: origin, nodeBytesPerSecond: link, regionLinkBytesPerSecond } = given;
  const fast = given.slowBytesPerSecond === undefined ? nodes : nodes - 1;
  return Math.max(
    fileBytes / origin,
    fileBytes / link,
    (fast * fileBytes) / (origin + fast * link),
    regionLinkBytesPerSecond === undefined ? 0 : fileBytes / regionLinkBytesPerSecond,
  );
}

export function describeCase(given: ShapedCase): string {
  const { nodes, regions, readers, kill, slowBytesPerSecond, regionLinkBytesPerSecond } = given;
  const rate = (bytes: number): string => `${bytes / 1e6} MB/s`;
  return [
    `${nodes} nodes x ${rate(given.nodeBytesPerSecond)}, origin ${rate(given.originBytesPerSecond)}, ${given.fileBytes / MiB} MiB`,
    ...(regions === undefined ? [] : [`${regions} regions, link ${rate(regionLinkBytesPerSecond ?? 0)}`]),
    ...(slowBytesPerSecond === undefined ? [] : [`one node ${rate(slowBytesPerSecond)}`]),
    ...(kill === true ? ["one node killed at half time, back after 2 s"] : []),
    ...(readers === undefined ? [] : [`${readers} readers at once`]),
  ].join(", ");
}
