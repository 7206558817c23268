/** A master over the framed RPC. */

import type { WorkerOrder } from "../base/cluster.ts";
import type { Clock } from "../io/clock.ts";
import type { Logger } from "../io/logger.ts";
import type { Address, Network } from "../io/network.ts";
import { RpcClient } from "../rpc/client.ts";
import type { PeerInfo } from "../rpc/hello.ts";
import { masterService } from "../rpc/master-service.ts";
import type { RequestOf } from "../rpc/method.ts";
import type { DescribeReply, HeartbeatRequest, LoadReport, MasterConnection } from "./master-link.ts";

type Methods = typeof masterService.methods;
/** A master that does not answer so soon is as good as gone. */
const callTimeoutMs = 5000;

export class RpcMaster implements MasterConnection {
  readonly name: string;
  readonly #client: RpcClient;

  constructor(options: {
    readonly address: Address;
    readonly network: Network;
    readonly self: PeerInfo;
    readonly clock: Clock;
    readonly logger: Logger;
  }) {
    this.name = `${options.address.host}:${options.address.port}`;
    this.#client = new RpcClient({ ...options, service: masterService });
  }

  attach(request: RequestOf<Methods["attachWorker"]>, signal: AbortSignal): AsyncIterable<WorkerOrder> {
    return this.#client.openStream(masterService.methods.attachWorker, request, { signal });
  }

  reportHoldings(request: RequestOf<Methods["reportHoldings"]>): Promise<unknown> {
    return this.#client.call(masterService.methods.reportHoldings, request, { timeoutMs: callTimeoutMs });
  }

  heartbeat(request: HeartbeatRequest): Promise<{ workersVersion: number }> {
    return this.#client.call(masterService.methods.heartbeat, request, { timeoutMs: callTimeoutMs });
  }

  reportLoad(request: LoadReport): Promise<unknown> {
    return this.#client.call(masterService.methods.reportLoad, request, { timeoutMs: callTimeoutMs });
  }

  describe(request: RequestOf<Methods["describe"]>): Promise<DescribeReply> {
    return this.#client.call(masterService.methods.describe, request, { timeoutMs: callTimeoutMs });
  }

  close(): Promise<void> {
    return this.#client.close();
  }
}
