// Plays the rows that have JavaScript with `bun --hot`, which runs a file again and keeps globalThis.

import { spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const rows = JSON.parse(await Bun.stdin.text());
const directory = mkdtempSync(join(tmpdir(), "edits-"));

const page = (definitions, make, check) => `${definitions}
const first = !("kept" in globalThis);
globalThis.kept ??= ${make};
const kept = globalThis.kept;
if (first) console.log("made");
else try { console.log((${check}) ? "yes" : "no") } catch (error) { console.log(String(error)) }
setInterval(() => {}, 1000);
`;

function play([before, make, after, check], number) {
  const path = join(directory, `page${number}.js`);
  writeFileSync(path, page(before, make, check));
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ["--hot", "--no-clear-screen", path]);
    const end = (outcome) => { clearTimeout(timer); child.kill("SIGKILL"); resolve(outcome) };
    const timer = setTimeout(end, 6000, "the edit had no effect");
    child.stdout.on("data", (data) => {
      for (const line of String(data).trim().split("\n")) {
        if (line === "made") setTimeout(() => writeFileSync(path, page(after, make, check)), 300);
        else if (line) end(line === "yes" ? true : line === "no" ? false : line);
      }
    });
  });
}

const outcomes = [];
for (const [number, row] of rows.entries()) {
  outcomes.push(row.javascript ? await play(row.javascript, number) : null);
}
console.log(`\n${JSON.stringify(outcomes)}`);
process.exit(0);
