/** Runs `failover-in-namespaces.ts`, where a leader can be cut off and its disk be made to hang. */

import { mkdir } from "node:fs/promises";
import { runInNamespaces, whyNoNamespaces } from "../../src/testing/network-namespaces.ts";
import type { BenchmarkContext } from "./benchmark.ts";
import type { FailoverResult } from "./peer.ts";
import type { StaleReads } from "./stale-reads.ts";

export type Round = FailoverResult & { readonly reads?: StaleReads };

/**
 * `cut`: the leader of the Raft journal is cut off from the other masters; `cut-zookeeper`: the primary of the journal in a shared directory, from
 * ZooKeeper and the other masters; `hang`: the disk of the Raft journal's leader hangs.
 */
export type NamespacedBlow = "cut" | "cut-zookeeper" | "hang";

/** Undefined where there are no namespaces; it is said why. */
export async function failoverInNamespaces(
  { note }: Pick<BenchmarkContext, "note">,
  kind: NamespacedBlow,
  rounds: number,
  directory: string,
): Promise<Round[] | undefined> {
  const reason = whyNoNamespaces();
  if (reason !== false) {
    note(`${kind} skipped: ${reason}`);
    return undefined;
  }
  await mkdir(directory, { recursive: true });
  const results: Round[] = [];
  const script = new URL("failover-in-namespaces.ts", import.meta.url);
  const { code, log } = await runInNamespaces(script, [kind, String(rounds), directory], {
    onLine: (line) => {
      results.push(JSON.parse(line) as Round);
      note(`${kind}, round ${results.length} of ${rounds}: ${results.at(-1)?.ms.toFixed(0)} ms`);
    },
  });
  if (code !== 0) throw new Error(`${script.pathname} ${kind} ended with ${code}: ${log}`);
  return results;
}
