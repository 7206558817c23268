/** The process that `killed.test.ts` kills: a worker that fills its cache from a slow origin. Arguments: directory, size, seed. */

import { TestCluster } from "./cluster.test-support.ts";

const [directory = "", size = "0", seed = "1"] = process.argv.slice(2);
const cluster = new TestCluster(directory);
const { file } = cluster.addFile(Number(size), { seed: Number(seed) });
cluster.origin.inject({ operation: "read", fault: { kind: "delay", durationMs: 3 } });
const worker = await cluster.addWorker("w1");
process.stdout.write("filling\n");
await worker.reader.read(file, { position: 0, length: file.sizeBytes }, { write: async () => {} });
await worker.cache.get(file.id)?.flush();
process.stdout.write("full\n");
setInterval(() => {}, 1000);
