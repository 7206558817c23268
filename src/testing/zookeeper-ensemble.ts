/**
 * Three real ZooKeeper servers (Debian's package) on loopback for tests: each can be killed, stopped in its tracks and started again.
 * Ticks are short, so that sessions of a second can be had.
 */

import { access, mkdir, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePorts, ServerProcess } from "../cli/role-process.ts";
import type { Address } from "../io/network.ts";

const jar = "/usr/share/java/zookeeper.jar";
/** The jar of Debian's package does not name all that its TLS needs. */
const tlsJars = [
  jar,
  ...["codec", "resolver", "transport-native-unix-common"].map((part) => `/usr/share/java/netty-${part}.jar`),
].join(":");
const tickMs = 500;
const readyTimeoutMs = 60_000;

export type ZooKeeperEnsemble = {
  readonly servers: readonly Address[];
  /** The same, with TLS; empty if they have none. */
  readonly tlsServers: readonly Address[];
  /** SIGKILL by default. */
  stop(index: number, signal?: NodeJS.Signals): Promise<void>;
  start(index: number): Promise<void>;
  /** SIGSTOP and SIGCONT. */
  freeze(index: number): void;
  thaw(index: number): void;
  /** The server that leads, as the servers themselves say. */
  leader(): Promise<number>;
};

export async function hasZooKeeper(): Promise<boolean> {
  return access(jar).then(
    () => true,
    () => false,
  );
}

export type ZooKeeperOptions = {
  /** The servers know this user of DIGEST-MD5. */
  readonly auth?: { readonly user: string; readonly password: string };
  /** They listen with TLS as well: files of PEM, with certificate and key, and with the authority of who may connect. */
  readonly tls?: { readonly identityPath: string; readonly caPath: string };
  /** Where they listen, and what they are started with: another host of a `HostNetwork`. */
  readonly host?: string;
  readonly prefix?: readonly string[];
};

export async function withZooKeeper<T>(
  directory: string,
  use: (ensemble: ZooKeeperEnsemble) => Promise<T>,
  options: ZooKeeperOptions = {},
): Promise<T> {
  const count = 3;
  const { auth, tls, host = "127.0.0.1", prefix = [] } = options;
  const ports = await freePorts(count * 4);
  const servers = Array.from({ length: count }, (_, i) => ({ host, port: ports[i * 3] as number }));
  const members = servers.map((_, i) => `server.${i + 1}=${host}:${ports[i * 3 + 1]}:${ports[i * 3 + 2]}`);
  const tlsServers = tls === undefined ? [] : servers.map((_, i) => ({ host, port: ports[count * 3 + i] as number }));
  const processes: (ServerProcess | undefined)[] = [];
  const jaas = join(directory, "jaas.conf");
  if (auth !== undefined) {
    const module = "org.apache.zookeeper.server.auth.DigestLoginModule";
    await writeFile(jaas, `Server { ${module} required user_${auth.user}="${auth.password}"; };\n`);
  }
  const home = (index: number): string => join(directory, `zookeeper-${index}`);
  for (const [i, { port }] of servers.entries()) {
    await mkdir(home(i), { recursive: true });
    await writeFile(join(home(i), "myid"), String(i + 1));
    const lines = [
      ...[`tickTime=${tickMs}`, "initLimit=20", "syncLimit=6", `dataDir=${home(i)}`, `clientPort=${port}`],
      ...[`clientPortAddress=${host}`, "admin.enableServer=false", "4lw.commands.whitelist=srvr", "maxClientCnxns=0"],
      ...["extendedTypesEnabled=true", "snapshot.trust.empty=true"],
      ...(auth === undefined ? [] : ["authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider"]),
      ...tlsLines(tls, tlsServers[i]),
      ...members,
    ];
    await writeFile(join(home(i), "zoo.cfg"), `${lines.join("\n")}\n`);
  }
  const launch = (index: number): void => {
    const login = auth === undefined ? [] : [`-Djava.security.auth.login.config=${jaas}`];
    const [command, ...words] = [...prefix, "java"];
    const server = new ServerProcess(`zookeeper ${index}`, command as string, [
      ...words,
      ...[
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        ...login,
        "-cp",
        tls === undefined ? jar : tlsJars,
      ],
      ...["org.apache.zookeeper.server.quorum.QuorumPeerMain", join(home(index), "zoo.cfg")],
    ]);
    server.stdout.resume();
    processes[index] = server;
  };
  const modeOf = async (index: number): Promise<string | undefined> => {
    const answer = await fourLetters(servers[index] as Address, "srvr").catch(() => "");
    return /^Mode: (\w+)/m.exec(answer)?.[1];
  };
  const ready = async (index: number): Promise<void> => {
    const deadline = Date.now() + readyTimeoutMs;
    while ((await modeOf(index)) === undefined) {
      if (Date.now() > deadline) throw new Error(`${processes[index]?.name} is not ready: ${processes[index]?.log}`);
      await sleep(100);
    }
  };
  try {
    for (let i = 0; i < count; i++) launch(i);
    for (let i = 0; i < count; i++) await ready(i);
    return await use({
      servers,
      tlsServers,
      stop: async (index, signal = "SIGKILL") => {
        await processes[index]?.stop(signal);
        processes[index] = undefined;
      },
      start: async (index) => {
        launch(index);
        await ready(index);
      },
      freeze: (index) => void processes[index]?.child.kill("SIGSTOP"),
      thaw: (index) => void processes[index]?.child.kill("SIGCONT"),
      leader: async () => {
        for (;;) {
          for (let i = 0; i < count; i++) if ((await modeOf(i)) === "leader") return i;
          await sleep(50);
        }
      },
    });
  } finally {
    await Promise.all(processes.map(async (server) => server?.stop("SIGKILL")));
  }
}

function tlsLines(tls: ZooKeeperOptions["tls"], address: Address | undefined): readonly string[] {
  if (tls === undefined || address === undefined) return [];
  return [
    "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
    ...[`secureClientPort=${address.port}`, `secureClientPortAddress=${address.host}`],
    ...[`ssl.keyStore.location=${tls.identityPath}`, "ssl.keyStore.type=PEM"],
    ...[`ssl.trustStore.location=${tls.caPath}`, "ssl.trustStore.type=PEM", "ssl.clientAuth=need"],
  ];
}

/** ZooKeeper's plain-text questions: four letters, an answer, the end. */
function fourLetters({ host, port }: Address, word: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port }, () => socket.write(word));
    let answer = "";
    socket.setTimeout(1000, () => socket.destroy(new Error("no answer")));
    socket.on("data", (chunk: Buffer) => (answer += chunk.toString()));
    socket.on("error", reject);
    socket.on("close", () => resolve(answer));
  });
}
