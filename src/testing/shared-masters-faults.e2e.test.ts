/** Three real masters over a shared directory and a real ensemble, one fault after the other, under clients whose history must be linearizable. */

import { testFaultScenario } from "./fault-scenario.ts";
import { hasZooKeeper } from "./zookeeper-ensemble.ts";

const program = "shared-masters-faults.ts";
const skip = (await hasZooKeeper()) ? false : "zookeeper (Debian) is not installed";

testFaultScenario("kills", "twelve kills of the primary in a row lose nothing", { program, skip });
