/**
 * One case of the distribution benchmark, as a program inside `runInNamespaces`: everything that it lays out is gone with it. Its
 * last line is the result.
 *
 *   shaped-run.ts CASE_JSON DIRECTORY
 */

import { MiB } from "../../src/base/units.ts";
import { mountMemory } from "../../src/testing/shaped-cluster.ts";
import type { ShapedCase } from "./shaped-case.ts";
import { runBitTorrent, runDirect, runHeadpond } from "./shaped-systems.ts";

/** What a node needs beside the file: its index, its log. */
const nodeExtraBytes = 64 * MiB;

const [text = "{}", directory = ""] = process.argv.slice(2);
const given = JSON.parse(text) as ShapedCase;
// Disks are not what is measured, and this machine has one for all nodes.
mountMemory(directory, `${Math.ceil(((given.nodes + 1) * (given.fileBytes + nodeExtraBytes)) / MiB) + 512}M`);
const systems = { headpond: runHeadpond, direct: runDirect, bittorrent: runBitTorrent };
const result = await systems[given.system](given, directory);
process.stdout.write(`${JSON.stringify(result)}\n`);
process.exit();
