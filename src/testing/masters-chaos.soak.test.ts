/** Five real masters on hosts of their own under several faults at a time, with clients whose history must be linearizable. */

import { testFaultScenario } from "./fault-scenario.ts";

testFaultScenario("five", "five masters survive two that die, halves, rings, and a network that flaps");
testFaultScenario(
  "all",
  "all faults at once lose nothing and serve nothing stale, and when they end five masters go on",
);
