// The examples of the client's page, each a module of its own, so that they are compiled.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

const page = readFileSync("../../../gen/typescript/README.md", "utf8");
const examples = [...page.matchAll(/^```ts\n(.*?)^```$/gms)];
if (examples.length === 0) throw new Error("The page has no example");
rmSync("examples", { recursive: true, force: true });
mkdirSync("examples");
for (const [index, [, code]] of examples.entries()) writeFileSync(`examples/${index}.ts`, code);
