/**
 * What a create costs a master that only applies it, as every follower does: decoding, state, flushes and the store's own thread,
 * without RPC and log. Run as a program with a directory and a count, it prints CPU us a create.
 */

import { fileURLToPath } from "node:url";
import type { SessionId } from "../../src/base/ids.ts";
import type { Path } from "../../src/base/path.ts";
import { ServerProcess } from "../../src/cli/role-process.ts";
import { NodeDisk } from "../../src/io/node-disk.ts";
import type { Command } from "../../src/namespace/command.ts";
import { encodeCommand } from "../../src/namespace/command-codec.ts";
import { LmdbStore } from "../../src/namespace/lmdb-store.ts";
import { Namespace } from "../../src/namespace/namespace.ts";
import { firstLine, withDirectory } from "./processes.ts";

const file = fileURLToPath(import.meta.url);
const directoryCount = 1000;
/** As the journal hands them over. */
const sliceEntries = 64;
const outstanding = 256;

/** CPU us a create, all threads of the process. */
export function applyCpuUs(count: number): Promise<number> {
  return withDirectory(async (directory) => {
    const child = new ServerProcess("apply", process.execPath, [file, directory, String(count)]);
    try {
      return Number(await firstLine(child));
    } finally {
      await child.stop();
    }
  });
}

async function measure(directory: string, count: number): Promise<number> {
  const namespace = new Namespace({ store: await LmdbStore.open({ directory, disk: new NodeDisk() }) });
  const timeMs = Date.now();
  let index = 0;
  let sequence = 0;
  const apply = async (payloads: readonly Uint8Array[]): Promise<void> => {
    const results = namespace.apply(payloads.map((payload) => ({ index: ++index, term: 1, payload })));
    const failed = results.find((result) => !result.ok);
    if (failed !== undefined) throw new Error(JSON.stringify(failed));
    if (namespace.pressure >= 1) await namespace.drained();
    await new Promise((done) => setImmediate(done));
  };
  const encode = (kind: "create" | "mkdir", path: string): Uint8Array => {
    sequence++;
    const origin = {
      sessionId: 1 as SessionId,
      sequence,
      acknowledged: Math.max(0, sequence - outstanding),
    };
    const owner = { mode: 0o644, owner: "root", group: "root", attributes: {} };
    const flags = { exclusive: false, recursive: false, forWriting: false };
    return encodeCommand({
      kind,
      timeMs: timeMs + sequence / 100,
      origin,
      path: path as Path,
      ...owner,
      ...flags,
    } as Command);
  };
  await apply([encodeCommand({ kind: "open-session", timeMs, timeoutMs: 60_000, client: "bench" })]);
  for (let i = 0; i < directoryCount; i++) await apply([encode("mkdir", `/d${i}`)]);
  // All are encoded beforehand, into one buffer: so they are no objects that the collector would have to carry along.
  const creates = Buffer.alloc(count * 96);
  const ends = new Int32Array(count + 1);
  for (let i = 0; i < count; i++) {
    const payload = encode("create", `/d${(Math.imul(i, 2654435761) >>> 0) % directoryCount}/file-${i}`);
    creates.set(payload, ends[i]);
    ends[i + 1] = (ends[i] as number) + payload.length;
  }
  const applyAll = async (from: number, to: number): Promise<void> => {
    for (let at = from; at < to; at += sliceEntries) {
      const payloads: Uint8Array[] = [];
      for (let i = at; i < Math.min(to, at + sliceEntries); i++) payloads.push(creates.subarray(ends[i], ends[i + 1]));
      await apply(payloads);
    }
    await namespace.flush();
  };
  const warm = Math.floor(count / 3);
  await applyAll(0, warm);
  const began = process.cpuUsage();
  await applyAll(warm, count);
  const { user, system } = process.cpuUsage(began);
  await namespace.close();
  return (user + system) / (count - warm);
}

if (process.argv[1] === file) {
  const [directory, count] = process.argv.slice(2);
  process.stdout.write(`${await measure(directory as string, Number(count))}\n`);
}
