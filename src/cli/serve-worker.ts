/** A worker with its gateways, wired to the real world. */

import { randomBytes } from "node:crypto";
import { availableParallelism } from "node:os";
import { type Config, formatHostPort, type HostPort, parseHostPort } from "../base/config.ts";
import { HeadpondError } from "../base/errors.ts";
import type { WorkerId } from "../base/ids.ts";
import { Random } from "../base/random.ts";
import { formatBytes } from "../base/units.ts";
import { connect, type HeadpondClient } from "../client/client.ts";
import { FilesGateway } from "../gateway/files.ts";
import { HuggingFaceGateway } from "../gateway/hugging-face.ts";
import { FileSender } from "../io/file-sender.ts";
import { type HttpHandler, HttpServer } from "../io/http-server.ts";
import { Metrics } from "../io/metrics.ts";
import { RpcMaster } from "../worker/rpc-master.ts";
import { Worker } from "../worker/worker.ts";
import { type WorkerLimits, workerLimits } from "../worker/worker-limits.ts";
import { advertisedHost, type Doors, type Served } from "./serve.ts";
import { openUnderStoreWith } from "./serve-under-store.ts";
import { version } from "./version.ts";

/** A cache directory without a capacity may fill so much of its file system. */
const capacityShareDefault = 0.9;
const closeGraceMs = 5000;

type RunningGateway = { readonly name: string; readonly address: string; close(): Promise<void> };

export async function serveWorker(config: Config, doors: Doors): Promise<Served> {
  const { clock, disk, network, logger } = doors;
  const metrics = new Metrics();
  const openUnderStore = openUnderStoreWith(doors, metrics);
  const host = advertisedHost(config["worker.data"].host, config["worker.advertise"]);
  const addresses: Record<string, string> = {};
  const id = config["worker.id"];
  const self = { software: version, role: "worker", name: id ?? "worker" };
  const connectMaster = (text: string): RpcMaster =>
    new RpcMaster({ address: parseHostPort(text), network, clock, logger, self });
  const directories = await resolveCapacities(config, doors);
  const limits = limitsOf(config);
  const sender = await FileSender.open({ threads: threadCount(config["worker.threads"]), logger });
  const worker = await Worker.start({
    sender,
    ...(id === undefined ? {} : { id: id as WorkerId }),
    incarnation: randomBytes(16).toString("hex"),
    place: config["worker.place"],
    directories,
    disk,
    clock,
    random: new Random(randomBytes(4).readUInt32LE()),
    logger,
    metrics,
    masters: config["worker.masters"].map(connectMaster),
    connectMaster,
    openUnderStore: ({ uri, options }) => openUnderStore(uri, options),
    data: config["worker.data"],
    http: config["worker.http"],
    advertisedHost: host,
    gateways: () => addresses,
    software: version,
    limits,
  }).catch(async (error: unknown) => {
    // Its threads would keep the process.
    await sender?.close();
    throw error;
  });
  const gateways: RunningGateway[] = [];
  let client: HeadpondClient | undefined;
  const close = async (): Promise<void> => {
    await Promise.all(gateways.map((gateway) => gateway.close()));
    await client?.close();
    await worker.close();
    await sender?.close();
  };
  try {
    client = connect({
      masters: config["worker.masters"],
      place: config["worker.place"],
      preferredWorker: worker.address(),
      localReader: worker.reader,
      staleOnUnavailable: true,
      clientName: `gateway of ${worker.id}`,
      clock,
      network,
      logger,
    });
    const files = new FilesGateway({ client, clock });
    const hub = new HuggingFaceGateway({ client, clock, logger, roots: { model: config["gateways.hubRoot"] } });
    const handlers: readonly (readonly [string, HostPort | undefined, HttpHandler])[] = [
      ["hf", config["gateways.hf"], hub.handle],
      ["files", config["gateways.files"], files.handle],
    ];
    for (const [name, listen, handler] of handlers) {
      if (listen === undefined) continue;
      const server = new HttpServer({ clock, logger: logger.child({ gateway: name }), handler });
      const { port } = await server.listen(listen);
      addresses[name] = formatHostPort({ host, port });
      gateways.push({ name, address: `http://${addresses[name]}`, close: () => server.close(closeGraceMs) });
    }
    // The masters may have heard of the worker before its gateways had their ports.
    worker.announce();
  } catch (error) {
    await close();
    throw error;
  }
  const { data, http, place } = worker.address();
  return {
    masters: config["worker.masters"],
    endpoints: {
      data,
      http: `http://${http}`,
      ...Object.fromEntries(gateways.map((gateway) => [gateway.name, gateway.address])),
    },
    workers: [{ id: worker.id, place, http: `http://${http}` }],
    directory: config["worker.dirs"][0]?.path ?? "",
    close,
  };
}

function threadCount(setting: number | "auto"): number {
  return setting === "auto" ? Math.max(1, Math.floor(availableParallelism() / 2)) : setting;
}

/** What the configuration says about reads at once and their memory, as the worker's limits. */
function limitsOf(config: Config): Pick<WorkerLimits, "fetcher" | "claims" | "warmBlocksMax"> {
  const fetcher = {
    ...workerLimits.fetcher,
    originReadsMax: config["worker.originConcurrency"],
    peerReadsMax: config["worker.peerConcurrency"],
  };
  const readsMax = fetcher.originReadsMax + fetcher.peerReadsMax + fetcher.diskReadsMax;
  const blockBytes = workerLimits.cache.blockSizeBytesMax;
  const warmBlocksMax = Math.floor(config["worker.fillBuffers"] / blockBytes) - readsMax;
  const claims = { ...workerLimits.claims, isOn: config["worker.loads"] === "claims" };
  if (warmBlocksMax >= 0) return { fetcher, claims, warmBlocksMax };
  throw new HeadpondError(
    "invalid",
    `worker.fillBuffers: ${formatBytes(config["worker.fillBuffers"])} are too little for worker.originConcurrency and ` +
      `worker.peerConcurrency: ${formatBytes(readsMax * blockBytes)} are needed`,
  );
}

async function resolveCapacities(
  config: Config,
  { disk }: Doors,
): Promise<{ readonly path: string; readonly capacityBytes: number }[]> {
  const resolved = [];
  for (const { path, capacityBytes } of config["worker.dirs"]) {
    await disk.makeDirectory(path);
    const share = Math.floor((await disk.space(path)).totalBytes * capacityShareDefault);
    resolved.push({ path, capacityBytes: capacityBytes ?? share });
  }
  return resolved;
}
