/** Three real masters over a shared directory and a real ensemble, one fault after the other, under clients whose history must be linearizable. */

import { testFaultScenario } from "./fault-scenario.ts";
import { hasZooKeeper } from "./zookeeper-ensemble.ts";

const program = "shared-masters-faults.ts";
const skip = (await hasZooKeeper()) ? false : "zookeeper (Debian) is not installed";

testFaultScenario(
  "processes",
  "masters over a shared store that are killed, frozen past their session, rolled and all killed lose nothing and serve nothing stale",
  { program, skip },
);
testFaultScenario(
  "zookeeper",
  "without ZooKeeper the primary goes on and no other one is made; slow, lossy, or cut off from one side it costs a moment at most",
  { program, skip },
);
testFaultScenario(
  "store",
  "a store that is full, read-only or gone for some of the masters or all costs time and nothing that was acknowledged",
  { program, skip },
);
