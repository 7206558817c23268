// Asks Alluxio's masters through Alluxio's own Java client, on command of a benchmark. Commands come on standard input, one a
// line; each is answered by one line:
//   leader                         host:port of the master that serves
//   load mkdir|stat THREADS MS     COUNT MEDIAN_US P99_US CPU_US    closed loop; the CPU is this process's own, for all
//   start THREADS                  ok      the threads make directories from now on; prints "ack BEGAN_MS ACKED_MS" and "err BEGAN_MS"
//   stop                           ok
// The addresses of the masters come as system properties (-Dalluxio.master.rpc.addresses=...).

import alluxio.AlluxioURI;
import alluxio.ClientContext;
import alluxio.client.file.FileSystem;
import alluxio.client.file.FileSystemContext;
import alluxio.conf.Configuration;
import alluxio.conf.InstancedConfiguration;
import alluxio.conf.PropertyKey;
import alluxio.conf.Source;
import alluxio.grpc.CreateDirectoryPOptions;
import alluxio.grpc.WritePType;
import alluxio.master.MasterInquireClient;
import alluxio.security.user.ServerUserState;

import com.sun.management.OperatingSystemMXBean;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.atomic.AtomicInteger;

public final class Driver {
  private static final int CLIENTS = 8;
  private static final int DIRECTORIES = 100;
  private static final CreateDirectoryPOptions NEW = CreateDirectoryPOptions.newBuilder()
      .setWriteType(WritePType.MUST_CACHE).setRecursive(false).setAllowExists(false).build();
  private static final CreateDirectoryPOptions ANY = NEW.toBuilder().setRecursive(true).setAllowExists(true).build();
  private static final AtomicInteger names = new AtomicInteger();
  private static volatile boolean running;

  public static void main(String[] args) throws Exception {
    FileSystem[] clients = new FileSystem[CLIENTS];
    List<Thread> threads = new ArrayList<>();
    BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
    for (String line; (line = commands.readLine()) != null;) {
      String[] words = line.split(" ");
      if (words[0].equals("leader")) {
        System.out.println(leader());
        continue;
      }
      for (int i = 0; i < CLIENTS; i++) {
        if (clients[i] == null) clients[i] = client();
      }
      if (names.get() == 0) {
        for (int i = 0; i < DIRECTORIES; i++) clients[0].createDirectory(new AlluxioURI("/b/d" + i), ANY);
        clients[0].createDirectory(new AlluxioURI(name(names.getAndIncrement())), ANY);
      }
      if (words[0].equals("load")) {
        System.out.println(load(clients, words[1], Integer.parseInt(words[2]), Long.parseLong(words[3])));
      } else if (words[0].equals("start")) {
        running = true;
        for (int i = 0; i < Integer.parseInt(words[1]); i++) {
          FileSystem client = clients[i % CLIENTS];
          Thread thread = new Thread(() -> writeOn(client));
          threads.add(thread);
          thread.start();
        }
        System.out.println("ok");
      } else if (words[0].equals("stop")) {
        running = false;
        for (Thread thread : threads) thread.join();
        threads.clear();
        System.out.println("ok");
      } else {
        throw new IllegalArgumentException(line);
      }
    }
    Runtime.getRuntime().halt(0);
  }

  private static InstancedConfiguration configuration() {
    InstancedConfiguration configuration = Configuration.copyGlobal();
    // What has nothing to do with the masters' speed is off, and waiting between attempts is short: the servers are measured.
    configuration.set(PropertyKey.USER_METRICS_COLLECTION_ENABLED, false, Source.RUNTIME);
    configuration.set(PropertyKey.USER_CONF_CLUSTER_DEFAULT_ENABLED, false, Source.RUNTIME);
    configuration.set(PropertyKey.USER_FILE_MASTER_CLIENT_POOL_SIZE_MAX, 1024, Source.RUNTIME);
    configuration.set(PropertyKey.USER_RPC_RETRY_MAX_SLEEP_MS,
        PropertyKey.USER_RPC_RETRY_MAX_SLEEP_MS.parseValue("100ms"), Source.RUNTIME);
    return configuration;
  }

  private static FileSystem client() {
    return FileSystem.Factory.create(FileSystemContext.create(ClientContext.create(configuration())));
  }

  /** A real request first: a master that starts is an address, too. */
  private static String leader() {
    try (FileSystem client = client()) {
      client.getStatus(new AlluxioURI("/"));
      return MasterInquireClient.Factory.create(configuration(), ServerUserState.global()).getPrimaryRpcAddress().toString();
    } catch (Exception error) {
      return "none";
    }
  }

  private static String name(int i) {
    return "/b/d" + i % DIRECTORIES + "/f" + i;
  }

  private static void write(FileSystem client) throws Exception {
    client.createDirectory(new AlluxioURI(name(names.getAndIncrement())), NEW);
  }

  private static String load(FileSystem[] clients, String operation, int count, long ms) throws Exception {
    OperatingSystemMXBean self = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    long cpuBegan = self.getProcessCpuTime();
    long end = System.nanoTime() + ms * 1_000_000;
    long[][] latencies = new long[count][];
    int made = names.get();
    Thread[] threads = new Thread[count];
    for (int t = 0; t < count; t++) {
      int lane = t;
      threads[t] = new Thread(() -> {
        FileSystem client = clients[lane % CLIENTS];
        long[] mine = new long[256];
        int n = 0;
        for (long began; (began = System.nanoTime()) < end;) {
          try {
            if (operation.equals("mkdir")) write(client);
            else client.getStatus(new AlluxioURI(name(ThreadLocalRandom.current().nextInt(made))));
          } catch (Exception error) {
            System.err.println(error);
            continue;
          }
          if (n == mine.length) mine = Arrays.copyOf(mine, 2 * n);
          mine[n++] = System.nanoTime() - began;
        }
        latencies[lane] = Arrays.copyOf(mine, n);
      });
      threads[t].start();
    }
    for (Thread thread : threads) thread.join();
    long[] all = Arrays.stream(latencies).flatMapToLong(Arrays::stream).sorted().toArray();
    if (all.length == 0) return "0 0 0 0";
    return all.length + " " + all[all.length / 2] / 1000 + " " + all[(int) (all.length * 0.99)] / 1000
        + " " + (self.getProcessCpuTime() - cpuBegan) / 1000;
  }

  private static void writeOn(FileSystem client) {
    while (running) {
      long began = System.currentTimeMillis();
      try {
        write(client);
        System.out.println("ack " + began + " " + System.currentTimeMillis());
      } catch (Exception error) {
        System.out.println("err " + began);
        try {
          Thread.sleep(20);
        } catch (InterruptedException stop) {
          return;
        }
      }
    }
  }
}
