/** nginx (Debian's) as a peer that serves one file: sendfile on, one worker process, access log off. */

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ServerProcess } from "../../src/cli/role-process.ts";
import { cpuSeconds, freePort, untilListening } from "./processes.ts";

export type Nginx = {
  readonly port: number;
  /** CPU seconds of its worker process and master. */
  cpuSeconds(): number;
  close(): Promise<void>;
};

/** Undefined where there is no nginx. */
export async function startNginx(directory: string, root: string): Promise<Nginx | undefined> {
  const port = await freePort();
  const home = join(directory, "nginx");
  await mkdir(home, { recursive: true });
  const config = join(home, "nginx.conf");
  await writeFile(
    config,
    `daemon off; master_process off; worker_processes 1; pid ${home}/pid; error_log ${home}/error.log;
user root;
events { worker_connections 256; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
  client_body_temp_path ${home}/a; proxy_temp_path ${home}/b; fastcgi_temp_path ${home}/c; uwsgi_temp_path ${home}/d; scgi_temp_path ${home}/e;
  server { listen 127.0.0.1:${port}; root ${root}; }
}
`,
  );
  const server = new ServerProcess("nginx", "nginx", ["-c", config, "-p", home]);
  if (!(await server.spawned())) return undefined;
  await untilListening(port);
  return { port, cpuSeconds: () => cpuSeconds(server), close: () => server.stop("SIGQUIT") };
}
