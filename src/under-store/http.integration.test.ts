import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { silentLogger } from "../io/logger.ts";
import { Metrics } from "../io/metrics.ts";
import { NodeClock } from "../io/node-clock.ts";
import { NodeDisk } from "../io/node-disk.ts";
import { holdsUnderStoreContract } from "../testing/under-store-contract.ts";
import { openUnderStore } from "./open.ts";

type WebServer = { readonly root: string; readonly port: number };

const processes: ChildProcess[] = [];
const directories: string[] = [];

after(() => {
  for (const each of processes) each.kill("SIGKILL");
  for (const each of directories) fs.rmSync(each, { recursive: true, force: true });
});
process.once("exit", () => {
  for (const each of processes) each.kill("SIGKILL");
});

/** Its listings leave out names that begin with a dot. */
const hiddenByNginx = ["..hidden.."];
const hasNginx = spawnSync("nginx", ["-v"]).error === undefined;
for (const format of ["html", "json"]) {
  const name = `http from nginx, listing in ${format}`;
  if (hasNginx) await holds(name, (server) => startNginx(server, format), hiddenByNginx);
  else test(name, { skip: "no nginx on the PATH" }, () => {});
}

const hasPython = spawnSync("python3", ["--version"]).error === undefined;
if (hasPython) await holds("http from Python's http.server", startPython);
else test("http from Python's http.server", { skip: "no python3 on the PATH" }, () => {});

async function holds(
  name: string,
  start: (server: WebServer) => ChildProcess,
  impossibleNames: string[] = [],
): Promise<void> {
  const parent = fs.mkdtempSync(path.join(os.tmpdir(), "headpond-web-"));
  directories.push(parent);
  fs.chmodSync(parent, 0o755);
  const server = { root: path.join(parent, "root"), port: await freePort() };
  fs.mkdirSync(server.root);
  processes.push(start(server));
  await accepting(server.port);
  let mounts = 0;
  holdsUnderStoreContract({
    name,
    writable: false,
    impossibleNames,
    open: async () => {
      mounts++;
      const directory = path.join(server.root, `mount ${mounts}`);
      fs.mkdirSync(directory);
      const common = { disk: new NodeDisk(), clock: new NodeClock(), logger: silentLogger, metrics: new Metrics() };
      const uri = `http://127.0.0.1:${server.port}/mount%20${mounts}/`;
      const store = await openUnderStore(uri, {}, { ...common, environment: {} });
      const seed = async (key: string, bytes: Uint8Array): Promise<void> => {
        fs.mkdirSync(path.dirname(path.join(directory, key)), { recursive: true });
        fs.writeFileSync(path.join(directory, key), bytes);
      };
      return { store, seed, close: () => store.close() };
    },
  });
}

function startNginx({ root, port }: WebServer, format: string): ChildProcess {
  const own = path.dirname(root);
  const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((each) => `${each}_temp_path ${own}/${each};`);
  const config = `
    daemon off; master_process off; pid ${own}/pid; error_log ${own}/error.log;
    events {}
    http {
      access_log off; ${paths.join(" ")}
      server { listen 127.0.0.1:${port}; root ${root}; autoindex on; autoindex_format ${format}; }
    }`;
  fs.writeFileSync(`${own}/nginx.conf`, config);
  return spawn("nginx", ["-p", own, "-c", `${own}/nginx.conf`, "-e", `${own}/error.log`], { stdio: "ignore" });
}

function startPython({ root, port }: WebServer): ChildProcess {
  const serve = ["-m", "http.server", String(port), "--bind", "127.0.0.1", "--directory", root];
  return spawn("python3", serve, { stdio: "ignore" });
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function accepting(port: number): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt++) {
    const isUp = await new Promise<boolean>((resolve) => {
      const socket = net.connect(port, "127.0.0.1");
      socket.once("connect", () => resolve(socket.destroy() !== undefined));
      socket.once("error", () => resolve(false));
    });
    if (isUp) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`no web server came up on port ${port}`);
}
