/** Three real masters on hosts of their own, one fault after the other, under clients whose history must be linearizable. */

import { testFaultScenario } from "./fault-scenario.ts";

testFaultScenario(
  "processes",
  "three masters that are killed, frozen, rolled and all killed at once lose nothing and serve nothing stale",
);
testFaultScenario(
  "links",
  "three masters go on under cuts of every kind, one way and between two, and under lossy and slow links",
);
testFaultScenario(
  "disks",
  "a full disk of a follower is not noticed, and one of the leader makes another lead or changes wait for room",
);
