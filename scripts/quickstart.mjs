/** `npm run quickstart`: installs what is missing, then runs the quickstart with the pinned Node. */

import { run } from "./run.mjs";

run("src/cli/quickstart.ts", process.argv.slice(2));
