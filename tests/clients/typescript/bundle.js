// What a page gets that uses the ITSM API alone: nothing of the other APIs, nothing of Node, and no REST services.
import { build } from "esbuild";

const page = `
  import { TicketsError } from "@tickets-service/client/errors";
  import { Itsm } from "@tickets-service/client/itsm";
  import { grpcWeb } from "@tickets-service/client/web";
  try {
    await new Itsm({ transport: grpcWeb(location.origin), apiKey: "" }).tickets.get("");
  } catch (error) {
    if (error instanceof TicketsError) console.error(error.reason);
  }`;
const { metafile, outputFiles } = await build({
  stdin: { contents: page, resolveDir: "." },
  bundle: true,
  minify: true,
  format: "esm",
  platform: "browser",
  write: false,
  metafile: true,
});
const [output] = Object.values(metafile.outputs);
const used = Object.entries(output.inputs).flatMap(([name, { bytesInOutput }]) => (bytesInOutput > 0 ? [name] : []));
const others = used.filter((name) => /connect-node|typescript\/dist\/.*(handoff|helpdesk|sla|rest|admin)/.test(name));
if (others.length > 0 || !used.some((name) => name.includes("itsm"))) {
  throw new Error(`The bundle of ${outputFiles[0].contents.length} bytes has ${others.join(", ")}`);
}
