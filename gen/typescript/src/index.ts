/** The client of all three APIs; one API alone is in `@tickets-service/client/itsm`, `/helpdesk` and `/handoff`. */

export { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
export { Code, type Transport } from "@connectrpc/connect";
export { TicketsClient } from "./client.js";
export { type Reason, TicketsError } from "./errors.js";
export * as handoff from "./handoff.js";
export * as helpdesk from "./helpdesk.js";
export * as itsm from "./itsm.js";
export type { CallOptions, ClientOptions, Credential, List, Retries, WatchOptions, WriteOptions } from "./session.js";
