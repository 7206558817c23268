/**
 * The physical limit of a request on this machine in this moment: an empty method through the same client and server as the master's,
 * the server in a process of its own. Run as a program, it is that server, and prints its port.
 */

import { fileURLToPath } from "node:url";
import Type from "typebox";
import { ServerProcess } from "../../src/cli/role-process.ts";
import { silentLogger } from "../../src/io/logger.ts";
import { NodeClock } from "../../src/io/node-clock.ts";
import { TcpNetwork } from "../../src/io/tcp-network.ts";
import { RpcClient } from "../../src/rpc/client.ts";
import { service, unary } from "../../src/rpc/method.ts";
import { RpcServer } from "../../src/rpc/server.ts";
import { runOutstanding } from "./benchmark.ts";
import { cpuSeconds, firstLine } from "./processes.ts";

const file = fileURLToPath(import.meta.url);
const echo = service("echo", 1, { echo: unary("echo", Type.Object({}), Type.Object({})) });
const self = (role: "client" | "master") => ({ software: "bench", role, name: "echo" });

export type EchoFigures = { readonly perSecond: number; readonly serverCpuUs: number };

export async function rpcEchoes(count: number, outstanding: number): Promise<EchoFigures> {
  const server = new ServerProcess("echo", process.execPath, [file]);
  const client = new RpcClient({
    network: new TcpNetwork(),
    address: { host: "127.0.0.1", port: Number(await firstLine(server)) },
    service: echo,
    self: self("client"),
    clock: new NodeClock(),
    logger: silentLogger,
  });
  try {
    const call = (): Promise<object> => client.call(echo.methods.echo, {});
    await runOutstanding(Math.ceil(count / 4), outstanding, call);
    const cpuBegan = cpuSeconds(server);
    const seconds = await runOutstanding(count, outstanding, call);
    return { perSecond: count / seconds, serverCpuUs: ((cpuSeconds(server) - cpuBegan) / count) * 1e6 };
  } finally {
    await client.close();
    await server.stop();
  }
}

if (process.argv[1] === file) {
  const server = new RpcServer({
    service: echo,
    handlers: { echo: () => ({}) },
    self: self("master"),
    clock: new NodeClock(),
    logger: silentLogger,
  });
  const { port } = await server.listen(new TcpNetwork(), { host: "127.0.0.1", port: 0 });
  process.stdout.write(`${port}\n`);
}
