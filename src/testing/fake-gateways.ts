/** Both gateways over a fake cluster, on ports of their own. */

import { connect, type HeadpondClient } from "../client/client.ts";
import { FilesGateway, type FilesGatewayLimits } from "../gateway/files.ts";
import { HuggingFaceGateway, type HuggingFaceLimits } from "../gateway/hugging-face.ts";
import { type HttpHandler, HttpServer } from "../io/http-server.ts";
import { silentLogger } from "../io/logger.ts";
import { NodeClock } from "../io/node-clock.ts";
import { FakeCluster } from "./fake-cluster.ts";

export type FakeGateways = {
  readonly cluster: FakeCluster;
  readonly client: HeadpondClient;
  /** `http://host:port` of each. */
  readonly files: string;
  readonly hub: string;
  /** Every request to the Hub mirror since it was last emptied: `GET /path` or `GET /path bytes=0-9`. */
  readonly hubRequests: string[];
  readonly close: () => Promise<void>;
};

export async function startFakeGateways(
  options: {
    readonly workers?: number;
    readonly filesLimits?: Partial<FilesGatewayLimits>;
    readonly hubLimits?: Partial<HuggingFaceLimits>;
  } = {},
): Promise<FakeGateways> {
  const clock = new NodeClock();
  const cluster = await FakeCluster.start({ workers: options.workers ?? 2 });
  const client = connect({ masters: cluster.masters, staleOnUnavailable: true });
  const servers: HttpServer[] = [];
  const serve = async (handler: HttpHandler): Promise<string> => {
    const server = new HttpServer({ handler, clock, logger: silentLogger });
    servers.push(server);
    const { host, port } = await server.listen({ host: "127.0.0.1", port: 0 });
    return `http://${host}:${port}`;
  };
  const filesGateway = new FilesGateway({ client, clock, ...limitsOf(options.filesLimits) });
  const hubGateway = new HuggingFaceGateway({ client, clock, logger: silentLogger, ...limitsOf(options.hubLimits) });
  const files = await serve(filesGateway.handle);
  const hubRequests: string[] = [];
  const hub = await serve((request, response) => {
    const range = request.headers["range"];
    hubRequests.push(`${request.method} ${request.target}${range === undefined ? "" : ` ${range}`}`);
    return hubGateway.handle(request, response);
  });
  const close = async (): Promise<void> => {
    await Promise.all(servers.map((server) => server.close(10)));
    await client.close();
    await cluster.close();
  };
  return { cluster, client, files, hub, hubRequests, close };
}

function limitsOf<T>(limits: T | undefined): { limits?: T } {
  return limits === undefined ? {} : { limits };
}
