/** Real masters and workers on hosts with shaped links, one fault after the other, each in the middle of a load. */

import { testFaultScenario } from "./fault-scenario.ts";

testFaultScenario(
  "machines",
  "loads survive workers that come late, are killed, slow or behind a lossy link, and a leader that is cut off: each copy is the origin's, and next to nothing leaves it twice",
  { program: "shaped-faults.ts" },
);
testFaultScenario(
  "contents",
  "a full disk, an object that changes, a block that rots and an origin that throttles end as what they are: no copy is wrong, and nothing is called done that is not",
  { program: "shaped-faults.ts" },
);
